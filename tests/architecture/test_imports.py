"""Imports point down only: the floors of the house, read from the syntax trees.

A module's floor is that of the longest prefix in `FLOORS`. Siblings (same floor, different
name) do not see each other, except on floor 1, which is acyclic.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source_files import ROOT, SHIPPED, SourceFile, source_files

FLOORS = {
    "provider_core.types": 0,
    "provider_core.model_card": 0,
    "provider_core.prices": 0,
    "provider_core.quotas": 0,
    "provider_core.errors": 0,
    "provider_core": 1,  # interfaces, hookspecs, plugins, settings, catalog, lifecycle, ...
    "provider_core.engine": 2,
    "provider_core.text": 2,
    "provider_core.billing": 2,
    "provider_core.images": 2,
    "provider_core.access": 2,
    "provider_core.observability": 2,
    "provider_core.loadtest": 2,  # sees servers from outside only, so none of ours either
    "provider_core.conformance": 3,  # from outside, too, with the load of `loadtest`
    "provider_core.planning": 3,  # simulates what `loadtest` measures and `engine` schedules
    "provider_core.text.generation": 3,
    "provider_core.billing.settlement": 3,
    "provider_core.dialects": 4,
    "provider_core.server": 5,
    "provider_core.testing": 5,
    "provider_core.cli": 6,
    "provider_core.__main__": 7,  # begins it
}

# What plugins and handlers may use of the core; `provider_core.NAME` itself is the public API.
PUBLIC = (
    "provider_core.server",
    "provider_core.decoder_io",
    "provider_core.engines",
    "provider_core.gpu_models",
    "provider_core.model_files",
    "provider_core.owned_files",
    "provider_core.plugin_settings",
    "provider_core.quantization",
    "provider_core.slots",
    "provider_core.sources",
    "provider_core.testing",
)

FILES = source_files(*SHIPPED)
CORE = [file for file in FILES if file.module.startswith("provider_core")]
PLUGINS = [file for file in FILES if file.path.parts[0] == "plugins"]
HANDLERS = [file for file in FILES if file.path.parts[0] == "handlers"]
MODULES = {file.module for file in FILES}


def is_in(name: str, package: str) -> bool:
    """Whether a dotted name is the package or below it."""
    return name == package or name.startswith(f"{package}.")


def unit_of(module: str) -> str:
    """The entry of `FLOORS` that a module belongs to."""
    return max((unit for unit in FLOORS if is_in(module, unit)), key=len)


def module_of(name: str) -> str:
    """The module that an imported name lives in: `a.b.C` is `a.b`."""
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def is_allowed(importer: str, imported: str) -> bool:
    """Whether one module of the core may import another."""
    lower, upper = unit_of(imported), unit_of(importer)
    if lower == upper:
        return True
    if FLOORS[lower] == FLOORS[upper] <= 1:
        return True
    return FLOORS[lower] < FLOORS[upper]


def ids(file: SourceFile) -> str:
    """A file's name in the report."""
    return str(file.path)


@pytest.mark.parametrize("file", CORE, ids=ids)
def test_the_core_imports_downwards(file: SourceFile) -> None:
    """No floor knows the ones above it, no sibling its sibling, and no core module a plugin."""
    ours = [name for name in file.imports() if name.partition(".")[0].startswith("provider_")]

    assert [name for name in ours if not is_in(name, "provider_core")] == []
    assert [name for name in ours if not is_allowed(file.module, module_of(name))] == []


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_imports_are_absolute(file: SourceFile) -> None:
    """The floor of an import can be read where it stands."""
    assert [name for name in file.imports() if name.startswith(".")] == []


@pytest.mark.parametrize("file", PLUGINS + HANDLERS, ids=ids)
def test_plugins_and_handlers_use_the_public_api(file: SourceFile) -> None:
    """What others build on is small: names of `provider_core` itself and a few modules of it."""
    own = file.module.partition(".")[0]
    public = {"provider_core", *PUBLIC}

    def is_public(name: str) -> bool:
        if any(is_in(name, module) for module in PUBLIC):
            return True
        return is_in(name, "provider_core") and module_of(name) in public

    ours = [name for name in file.imports() if name.partition(".")[0].startswith("provider_")]
    assert [name for name in ours if not is_in(name, own) and not is_public(name)] == []


def test_the_page_for_authors_lists_what_they_may_use() -> None:
    """And nothing else."""
    page = (ROOT / "docs/writing-a-backend.md").read_text(encoding="utf-8")
    _, _, table = page.partition("| module of `provider_core` |")
    listed = re.findall(r"^\| `(\w+)` \|", table.partition("\n\n")[0], re.MULTILINE)

    assert sorted(f"provider_core.{name}" for name in listed) == sorted(PUBLIC)


@pytest.mark.parametrize("floor", [0, 1])
def test_the_lowest_floors_have_no_cycle(floor: int) -> None:
    """Modules of the foundation may see each other, in one direction."""
    files = {file.module: file for file in CORE if FLOORS[unit_of(file.module)] == floor}
    below = {
        name: {module_of(i) for i in file.imports() if is_in(i, "provider_core")} & files.keys()
        for name, file in files.items()
    }
    while removable := [name for name, uses in below.items() if not uses & below.keys() - {name}]:
        for name in removable:
            del below[name]

    assert below == {}


STDLIB_ONLY = [file for file in CORE if FLOORS[unit_of(file.module)] == 0]


@pytest.mark.parametrize("file", STDLIB_ONLY, ids=ids)
def test_floor_0_is_standard_library_only(file: SourceFile) -> None:
    """Values and errors need nothing but each other."""
    values = {module for module, floor in FLOORS.items() if floor == 0}
    others = [name for name in file.imports() if name.rpartition(".")[0] not in values]

    assert {name.partition(".")[0] for name in others} - sys.stdlib_module_names == set()


ENGINE = [file for file in CORE if is_in(file.module, "provider_core.engine")]
FORBIDDEN_IN_ENGINE = {
    "aiohttp",
    "jinja2",
    "json",
    "orjson",
    "pydantic",
    "tokenizers",
}


@pytest.mark.parametrize("file", ENGINE, ids=ids)
def test_the_engine_sees_ids_only(file: SourceFile) -> None:
    """No JSON, no HTTP, no text below the rim."""
    roots = {name.partition(".")[0] for name in file.imports()}

    assert roots & FORBIDDEN_IN_ENGINE == set()


PACKAGES = sorted(
    {"provider_core", "provider_core.cli", "provider_core.plugins"}
    | {
        file.module
        for file in PLUGINS
        if file.path.name == "__init__.py" and file.module.isidentifier()
    }
)
HEAVY = (
    "onnx",
    "onnxruntime",
    "onnxruntime_genai",
    "safetensors",
    "scipy",
    "tensorrt",
    "torch",
    "transformers",
)


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_needs_no_runtime(package: str) -> None:
    """The core and every plugin import on a machine without a GPU and without any runtime."""
    code = f"""
import sys
for name in {HEAVY}:
    sys.modules[name] = None  # importing it raises ImportError
import {package}
"""
    path = f"{ROOT}:{ROOT / 'plugins'}"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": path},
        cwd=Path("/"),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("package", ["provider_core", "provider_core.cli"])
def test_the_public_api_and_the_command_line_import_little(package: str) -> None:
    """A plugin's import and `provider version` do not pay for a web server."""
    slow = ("aiohttp", "jinja2", "orjson", "prometheus_client", "pydantic", "tokenizers")
    code = f"import sys, {package}; print(*(name for name in {slow} if name in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert loaded.stdout.split() == []

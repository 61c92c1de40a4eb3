"""What `pip install` brings: the packages that serve, and nothing that only builds or tests."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.architecture.source_files import ROOT, SHIPPED, source_files

MAX_BYTES = 12 * 2**20
"""The built-in model is most of it."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([*pip, *options, str(ROOT)], check=True)
    (built,) = folder.iterdir()
    return built


def names(wheel: Path) -> list[str]:
    """Paths in the wheel."""
    with ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_holds_only_packages_of_ours(wheel: Path) -> None:
    """Nothing of ours can shadow a library, and no test is installed."""
    top = {name.partition("/")[0] for name in names(wheel)}
    info = {name for name in top if name.endswith(".dist-info")}

    assert len(info) == 1
    brought = [*ROOT.glob("plugins/provider_*"), *ROOT.glob("handlers/provider_*")]
    assert top - info == {"provider_core", *(path.name for path in brought)}


def test_the_wheel_holds_every_module(wheel: Path) -> None:
    """What runs from the checkout runs from the wheel; recipes stay in the repository."""
    modules = [file.path for file in source_files(*SHIPPED)]
    shipped = {
        str(path.relative_to(path.parts[0]) if path.parts[0] in {"plugins", "handlers"} else path)
        for path in modules
        if "recipe" not in path.parts
    }

    assert {name for name in names(wheel) if name.endswith(".py")} == shipped


def test_the_wheel_holds_the_pages(wheel: Path) -> None:
    """What the server renders for people is found where it runs."""
    pages = {str(path.relative_to(ROOT)) for path in ROOT.glob("provider_core/server/pages/*")}

    assert pages
    assert pages <= set(names(wheel))


def test_the_wheel_holds_the_platforms(wheel: Path) -> None:
    """Each platform's profile is beside the module that its entry point names."""
    profiles = {f"{path.parent.name}/{path.name}" for path in ROOT.glob("handlers/*/*.toml")}

    assert profiles
    assert profiles <= set(names(wheel))


def test_the_wheel_holds_what_new_plugins_are_made_of(wheel: Path) -> None:
    """`provider plugins new` works where it is installed."""
    folder = ROOT / "provider_core/cli/plugin_templates"
    templates = {str(path.relative_to(ROOT)) for path in folder.rglob("*.txt")}

    assert templates
    assert templates <= set(names(wheel))


def test_the_wheel_is_typed(wheel: Path) -> None:
    """Type checkers of plugin authors read our annotations."""
    assert "provider_core/py.typed" in names(wheel)


def test_the_wheel_is_small(wheel: Path) -> None:
    """A cold start downloads it."""
    assert wheel.stat().st_size <= MAX_BYTES

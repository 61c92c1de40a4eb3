"""What a start imports before its socket is open: that is what every platform waits for.

Times are the machine's; what is imported is ours. So a package that is not in the budget fails
here, however quick it is, and says what it costs.
"""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.platform.lambda_function.runtime_api import RuntimeApiServer
from tests.platform.runpod.control_plane import ControlPlane

ROOT = Path(__file__).parents[2]
PACKAGES = {
    *("pydantic", "pydantic_core", "pydantic_settings", "annotated_types", "typing_inspection"),
    *("typer", "annotated_doc", "shellingham", "colorama"),
    *("orjson", "pluggy", "structlog", "dotenv", "typing_extensions"),
    "provider_core",
}
MOST_MODULES = 600  # of them and of the standard library; 525 were when this was written
HANDLERS = {
    "cloud-run": "provider_http",
    "runpod": "provider_runpod",
    "sagemaker": "provider_sagemaker",
    "lambda": "provider_lambda",
}
"""The one package that a platform adds to the budget."""
ENVIRONMENTS: Mapping[str, Mapping[str, str]] = {
    "runpod": ControlPlane().environment,
    "lambda": RuntimeApiServer().environment,
}
_SERVE = """
import os, sys

def see(event, _):
    if event == "socket.bind":
        os.write(1, " ".join(sys.modules).encode())
        os._exit(0)

sys.addaudithook(see)
from provider_core.__main__ import main
main()
"""
_LINE = re.compile(r"^import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)$", re.MULTILINE)


def imports(platform: str, folder: Path, *paths: Path) -> dict[str, int]:
    """Modules that are imported before the first socket is bound, and their own microseconds."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", _SERVE, "serve", "--platform", platform],
        cwd=folder,
        env={
            "PYTHONPATH": ":".join(map(str, (*paths, ROOT, ROOT / "plugins", ROOT / "handlers"))),
            "PROVIDER_PORT": "0",
            **ENVIRONMENTS.get(platform, {}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    took_us = {module: int(duration_us) for duration_us, module in _LINE.findall(run.stderr)}
    return {module: took_us.get(module, 0) for module in run.stdout.split()}


def costs(found: Mapping[str, int], platform: str) -> dict[str, str]:
    """What each package takes that is not in the platform's budget, as a share of all."""
    by_package = Counter[str]()
    for module, duration_us in found.items():
        by_package[module.partition(".")[0]] += duration_us
    known = (
        PACKAGES
        | {HANDLERS.get(platform)}
        | sys.stdlib_module_names
        | {"sitecustomize", "usercustomize"}
    )
    return {
        package: f"{100 * duration_us / by_package.total():.1f} %"
        for package, duration_us in by_package.items()
        if package not in known and not package.startswith("_")
    }


@pytest.mark.parametrize("platform", ["local", *HANDLERS])
def test_little_is_imported_before_the_socket_is_open(platform: str, tmp_path: Path) -> None:
    """On each kind of handler: settings, the command line, and no web server."""
    found = imports(platform, tmp_path)
    assert "provider_core.server.listeners" in found
    assert costs(found, platform) == {}
    assert HANDLERS.get(platform, "provider_core") in found
    assert len(found) <= MOST_MODULES


def test_a_package_beyond_the_budget_is_found(tmp_path: Path) -> None:
    """A handler that imports its runtime at the top of its module, or another handler."""
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[provider_core.platforms]\nacme = acme_handler\n")
    (tmp_path / "acme_handler").mkdir()
    (tmp_path / "acme_handler/__init__.py").write_text("import jinja2, provider_lambda\n")
    (tmp_path / "acme_handler/acme.toml").write_text("signs = []\n[settings]\n")
    found = costs(imports("acme", tmp_path, tmp_path), "acme")
    assert {"acme_handler", "jinja2", "markupsafe", "provider_lambda"} <= found.keys()

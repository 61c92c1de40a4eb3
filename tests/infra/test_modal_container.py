"""What `infra/modal/app.py` does in a container, with decorators that decorate nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra import images

APP = images.ROOT / "infra/modal/app.py"
CONTAINER = """
import runpy, sys
from unittest.mock import MagicMock

same = MagicMock(side_effect=lambda decorated: decorated)
modal = sys.modules["modal"] = MagicMock()
modal.App.return_value.cls.return_value = same
modal.concurrent.return_value = modal.web_server.return_value = modal.exit.return_value = same
container = runpy.run_path(sys.argv[1])["Provider"]()
container.serve()
"""


def run(script: str, provider: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a container to its end.

    Args:
        script: What Modal does after the start.
        provider: The server, a shell script.
        folder: Where it is written.
    """
    server = folder / "provider"
    server.write_text(f"#!/bin/sh\n{provider}\n")
    server.chmod(0o755)
    return subprocess.run(
        [sys.executable, "-c", CONTAINER + script, str(APP)],
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_container_drains_its_server(tmp_path: Path) -> None:
    """Waits until it has ended, and does not end before its own time."""
    ready, held = tmp_path / "ready", tmp_path / "held"
    os.mkfifo(ready)
    os.mkfifo(held)
    server = f"trap 'echo drained; exit 0' TERM; echo > {ready}; read _ < {held}"
    script = f"open({str(ready)!r}).read(); container.stop(); print('stopped')"
    ended = run(script, server, tmp_path)
    assert (ended.returncode, ended.stdout.split()) == (0, ["drained", "stopped"])


@pytest.mark.parametrize("exit_code", [0, 3])
def test_a_container_ends_with_its_server(exit_code: int, tmp_path: Path) -> None:
    """So that Modal starts another one."""
    server = f'echo "$@"; exit {exit_code}'
    ended = run("import threading; threading.Event().wait()", server, tmp_path)
    assert ended.returncode == exit_code
    assert ended.stdout == "serve --platform modal\n"

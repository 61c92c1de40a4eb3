"""A start that fails while a model still loads: one message, the exit code, and no waiting."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import make_model_dir

ROOT = Path(__file__).parents[2]
PROVIDER = [sys.executable, "-m", "provider_core"]
LOADING = "the backend is loading"
SLOW_BACKEND = f'''
import sys
import threading

from provider_core import hookimpl


@hookimpl
def load_model(model):
    """Never return."""
    print("{LOADING}", file=sys.stderr, flush=True)
    threading.Event().wait()
'''
BROKEN_BACKEND = """
from provider_core import hookimpl


@hookimpl
def load_model():
    raise OverflowError("no room\\nfor it")
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an installed plugin that loads for ever."""
    folder = tmp_path / "site"
    info = folder / "slow_backend-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "slow_backend.py").write_text(SLOW_BACKEND)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[provider_core]\nslow = slow_backend\n")
    return folder


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def start(site: Path, port: int) -> subprocess.Popen[str]:
    """Start a server whose model loads for ever."""
    folder = site.parent
    model = make_model_dir(folder / "model", max_model_len=64)
    options = ["--model", str(model), "--port", str(port), "--data-dir", str(folder / "data")]
    return subprocess.Popen(
        [*PROVIDER, "serve", *options],
        cwd=folder,
        env={
            "PYTHONPATH": f"{site}:{ROOT}:{ROOT / 'plugins'}",
            "PROVIDER_PLUGINS": "slow",
            "PROVIDER_API_KEY": "sk-failing-start",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_failure_does_not_wait_for_a_model(site: Path) -> None:
    """The message is the failure's, in the log and for the person, and the code is 2."""
    journal = site.parent / "data" / "journal"
    journal.parent.mkdir()
    journal.write_text("no folder")
    with start(site, 0) as process:
        out, err = process.communicate(timeout=50)
    assert process.returncode == 2
    loading, failure = err.splitlines()
    assert loading == LOADING
    assert failure.startswith("provider: ")
    assert str(journal) in failure
    assert '"event":"server.failed"' in out
    (stopped,) = [line for line in out.splitlines() if '"event":"server.stopped"' in line]
    assert '"exit_code":2' in stopped


def test_a_backend_that_raises_is_one_line(site: Path) -> None:
    """Whatever it is that it raises; where, is in the log."""
    (site / "slow_backend.py").write_text(BROKEN_BACKEND)
    with start(site, 0) as process:
        out, err = process.communicate(timeout=50)
    assert process.returncode == 2
    assert err == "provider: model 'model': backend failed: OverflowError: no room for it\n"
    events = [json.loads(line) for line in out.splitlines()]
    (raised,) = (event for event in events if event["event"] == "plugin.raised")
    assert (raised["phase"], raised["exception_type"]) == ("backend", "OverflowError")
    assert "slow_backend.py" in raised["exception"]
    assert events[-1]["event"] == "server.failed"


def test_a_port_that_is_taken_is_found_before_anything_is_loaded(
    site: Path, taken_port: int
) -> None:
    """One line says what to do."""
    with start(site, taken_port) as process:
        out, err = process.communicate(timeout=50)
    assert process.returncode == 2
    assert err == (
        f"provider: cannot bind 127.0.0.1:{taken_port}: Address already in use; "
        "set PROVIDER_HOST or PROVIDER_PORT\n"
    )
    assert '"event":"server.failed"' in out


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_does_not_wait_for_a_model(site: Path, signum: int) -> None:
    """Whether it comes while the server is imported or later: nothing is torn down meanwhile."""
    with start(site, 0) as process:
        assert process.stderr is not None
        assert process.stderr.readline().strip() == LOADING
        os.kill(process.pid, signum)
        _, err = process.communicate(timeout=50)
    assert process.returncode == 0
    assert err == ""


def test_a_reload_that_is_asked_for_too_early_ends_nothing(site: Path) -> None:
    """The file is read again after the start anyway."""
    with start(site, 0) as process:
        assert process.stderr is not None
        assert process.stderr.readline().strip() == LOADING
        for signum in (signal.SIGHUP, signal.SIGTERM):
            os.kill(process.pid, signum)
        process.communicate(timeout=50)
    assert process.returncode == 0

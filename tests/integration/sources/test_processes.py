"""Fetches of whole processes: killed, side by side, and of a server that starts meanwhile."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import requests

from tests.scripted_store import ScriptedStore, scripted_store, sums_of
from tests.serving import make_model_dir

RANGE = 16 * 2**20
WAIT_S = 30
MODEL = os.urandom(2 * RANGE + 1000)  # three ranges


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ScriptedStore]:
    """A server of a model that nobody can load, whose first large answer stops in its middle."""
    folder = make_model_dir(tmp_path / "tiny")
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"model.onnx": MODEL}
    given = {f"/tiny/{name}": content for name, content in files.items()}
    store = ScriptedStore({"/tiny/SHA256SUMS": sums_of(files), **given})
    with scripted_store(store):
        yield store


@contextmanager
def provider(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command, killed if it does not end by itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from provider_core.cli import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def pull(store: ScriptedStore, data_dir: Path) -> list[str]:
    """The arguments of a pull."""
    return ["pull", f"{store.url}/tiny", "--data-dir", str(data_dir)]


def test_a_killed_process_leaves_what_it_has(store: ScriptedStore, tmp_path: Path) -> None:
    """The next one asks for the rest alone, and says where the model is."""
    last = 2 * RANGE
    store.gate, store.gated = Event(), lambda seen: seen.first == last
    with provider(*pull(store, tmp_path / "data")) as killed:
        assert store.held.wait(WAIT_S)
        (part,) = tmp_path.glob("data/models/*/*.parts/model.onnx")
        while part.read_bytes()[-3:] != b"\1\1\0":  # the marks of its ranges
            os.sched_yield()
        killed.send_signal(signal.SIGKILL)
    store.gate.set()
    store.seen.clear()
    with provider(*pull(store, tmp_path / "data")) as again:
        out, log = again.communicate(timeout=WAIT_S)
    assert (again.returncode, b'"model.fetched"' in log) == (0, True)
    assert (Path(out.decode().strip()) / "model.onnx").read_bytes() == MODEL
    assert [seen.first for seen in store.gets("/tiny/model.onnx")] == [last]


def test_two_processes_fetch_once(store: ScriptedStore, tmp_path: Path) -> None:
    """The second waits for the first, says so, and asks for nothing."""
    store.gate, store.gated = Event(), lambda seen: seen.first == 0 and "model.onnx" in seen.path
    with provider(*pull(store, tmp_path / "data")) as first:
        assert store.held.wait(WAIT_S)
        with provider(*pull(store, tmp_path / "data")) as second:
            assert second.stderr is not None
            line = second.stderr.readline()
            store.gate.set()
            outs = [process.communicate(timeout=WAIT_S)[0] for process in (first, second)]
    assert b'"model.fetch_waits"' in line
    assert outs[0] == outs[1] != b""
    assert len(store.gets("/tiny/model.onnx")) == 3


def test_a_server_gets_ready_while_its_weights_come(store: ScriptedStore, tmp_path: Path) -> None:
    """It says how far they are, and has read its tokenizer; a stop does not wait for them."""
    store.gate, store.gated = Event(), lambda seen: seen.first == 2 * RANGE
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--port", str(port), "--data-dir", str(tmp_path / "data")]
    with provider("serve", "--model", f"{store.url}/tiny", *options) as server:
        body: dict[str, Any] = {}
        while (
            not {"tokenizer_ms", "chat_template_ms"} <= body.keys() or "99 %" not in body["reason"]
        ):
            body = ask(f"http://127.0.0.1:{port}/startupz")
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=WAIT_S)
    assert not store.gate.is_set()
    assert (body["status"], body["reason"]) == ("starting", "fetching model tiny, 99 %")
    assert "fetch_ms" not in body
    assert server.returncode == 0
    assert b'"model.fetching"' in out


def ask(url: str) -> dict[str, Any]:
    """A probe's answer, whatever its status; nothing before the socket is open."""
    try:
        return dict(requests.get(url, timeout=WAIT_S).json())
    except requests.ConnectionError:
        return {}

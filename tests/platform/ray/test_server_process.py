"""A replica's server, without Ray: it answers, and ends with whoever started it."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from provider_ray.calls import Call, Head
from provider_ray.server_process import ServerProcess
from tests.platform.ray.processes import ancestors, servers
from tests.serving import KEY

HEADERS = (("Authorization", f"Bearer {KEY}"), ("Content-Type", "application/json"))


def chat(**fields: Any) -> Call:
    """A request to the built-in model."""
    messages = [{"role": "user", "content": "Hello!"}]
    body = {"model": "starter", "messages": messages, "stream": True, **fields}
    return Call(
        method="POST",
        path="/v1/chat/completions",
        headers=HEADERS,
        body=json.dumps(body).encode(),
    )


async def start(folder: Path, **environment: str) -> ServerProcess:
    """Start one."""
    variables = {
        "PROVIDER_PLATFORM": "ray",
        "PROVIDER_API_KEY": KEY,
        "PROVIDER_DATA_DIR": str(folder / "data"),
        "PROVIDER_PLUGINS": "onnxruntime,starter",
    }
    return await ServerProcess.start({**variables, **environment}, folder / "log" / "usage.log")


def logged(folder: Path, name: str) -> list[dict[str, Any]]:
    """Lines of an event."""
    lines = (folder / "log" / "usage.log").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


async def test_it_answers_and_ends_when_told(tmp_path: Path) -> None:
    """With a head first, without the headers of its connection, and all that it owes in the log."""
    server = await start(tmp_path)
    await server.check_ready()
    head, *pieces = [piece async for piece in server.answer(chat(max_tokens=3))]
    server.stop()
    await server.until_ended()

    assert logged(tmp_path, "server.draining")
    assert isinstance(head, Head)
    assert head.status == 200
    names = {name.lower() for name, _ in head.headers}
    assert "content-type" in names
    assert names.isdisjoint({"transfer-encoding", "connection", "content-length"})
    assert b"".join(piece for piece in pieces if isinstance(piece, bytes)).endswith(b"[DONE]\n\n")
    assert [bill["completion_tokens"] for bill in logged(tmp_path, "usage.final")] == [3]


async def test_it_ends_with_its_replica_and_settles_first(tmp_path: Path) -> None:
    """A replica that is killed leaves no server behind, nor a request without a bill."""
    server = await start(tmp_path)
    answer = server.answer(chat(max_tokens=20_000, ignore_eos=True))
    await anext(answer)
    server._link.shutdown(socket.SHUT_WR)  # as the system does at a process's end
    await answer.aclose()
    await server.until_ended()

    assert [bill["status"] for bill in logged(tmp_path, "usage.final")] == ["cancelled"]


async def test_a_replica_hears_of_its_server_s_end(tmp_path: Path) -> None:
    """However it came; nobody has asked for it."""
    server = await start(tmp_path)
    (pid,) = servers(tmp_path / "data")
    os.kill(pid, signal.SIGKILL)
    await server.until_ended()

    assert not server.is_stopping


async def test_a_server_is_no_child(tmp_path: Path) -> None:
    """Ray kills those of a worker that it ends."""
    server = await start(tmp_path)
    (pid,) = servers(tmp_path / "data")

    assert os.getpid() not in ancestors(pid)
    assert os.getsid(pid) == pid
    server.stop()
    await server.until_ended()


async def test_a_server_that_cannot_start_is_an_error(tmp_path: Path) -> None:
    """Ray tries again, and says so in the end."""
    with pytest.raises(RuntimeError, match="before it served"):
        await start(tmp_path, PROVIDER_MODEL=str(tmp_path / "nowhere"))


def test_nobody_starts_it_by_hand(tmp_path: Path) -> None:
    """Who tries learns what to start."""
    serve = "from provider_core.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", serve, "serve", "--platform", "ray"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert ran.returncode == 2
    assert "serve run provider_ray.application:make_app" in ran.stderr

"""The hooks around a snapshot, asked as the core asks them."""

import random
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from structlog.testing import capture_logs

from provider_core import hookimpl
from provider_core.lifecycle import Lifecycle
from provider_core.plugins import CoreHooks, PluginManager
from provider_core.server.snapshot import take_snapshot

TAKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CUT = {
    "no reply": b"",
    "status line": b"HTTP/1.1 2",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
}
"""As much as came before the copy was made."""


class Diary:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @hookimpl
    def before_snapshot(self) -> None:
        """Let go."""
        self.heard.append("before_snapshot")

    @hookimpl
    def after_restore(self) -> None:
        """Take up."""
        self.heard.append("after_restore")


@contextmanager
def platform(diary: Diary, reply: bytes = TAKEN) -> Iterator[str]:
    """Takes a snapshot when it is asked, and closes the connection after its reply."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            diary.heard.append("snapshot")
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/checkpoint"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def diary() -> Diary:
    """A plugin."""
    return Diary()


def snapshot_at(url: str, diary: Diary, lifecycle: Lifecycle) -> list[str]:
    """Ask for one; the events that were logged."""
    plugins = PluginManager()
    plugins.register(CoreHooks())
    plugins.register(diary)
    with capture_logs() as logs:
        take_snapshot(url, plugins, lifecycle)
    return [line["event"] for line in logs]


def test_before_snapshot(diary: Diary) -> None:
    """It comes before the platform is asked."""
    with platform(diary) as url:
        assert snapshot_at(url, diary, Lifecycle()) == ["snapshot.taken"]
    assert diary.heard == ["before_snapshot", "snapshot", "after_restore"]


@pytest.mark.parametrize("reply", CUT.values(), ids=CUT)
def test_after_restore(diary: Diary, reply: bytes) -> None:
    """A copy hears it, too; its start is counted from there, and it draws other numbers."""
    lifecycle = Lifecycle(started_s=-1e6)
    lifecycle.add_phase("backend", 1)
    random.seed(1)
    expected = random.Random(1).random()  # noqa: S311 - what the copied state would give
    with platform(diary, reply) as url:
        assert snapshot_at(url, diary, lifecycle) == ["snapshot.restored"]
    assert diary.heard == ["before_snapshot", "snapshot", "after_restore"]
    timings = lifecycle.timings_ms()
    assert timings.keys() == {"total_ms"}
    assert timings["total_ms"] < 1e6
    assert random.random() != expected  # noqa: S311 - as above


def test_copies_share_no_secrets_of_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL's generator is in the memory that they share: each adds what nobody else has."""
    added: list[bytes] = []
    monkeypatch.setattr(ssl, "RAND_add", lambda seed, _: added.append(seed))
    for _ in range(2):
        CoreHooks().after_restore()
    assert [len(seed) for seed in added] == [48, 48]
    assert added[0] != added[1]


def test_a_platform_that_takes_none_does_not_stop_the_start(diary: Diary) -> None:
    """It is said, and what was let go is taken up."""
    with platform(diary) as url:
        pass
    assert snapshot_at(url, diary, Lifecycle()) == ["snapshot.failed"]
    assert diary.heard == ["before_snapshot", "after_restore"]


@pytest.mark.parametrize("reply", [b"HTTP/1.1 404 Not Found\r\n\r\n", b"HTTP/3 200 OK\r\n\r\n"])
def test_a_reply_that_is_no_snapshot_does_not_stop_the_start(diary: Diary, reply: bytes) -> None:
    """A refusal, and what is not the HTTP that was asked for."""
    with platform(diary, reply) as url:
        assert snapshot_at(url, diary, Lifecycle()) == ["snapshot.failed"]
    assert diary.heard == ["before_snapshot", "snapshot", "after_restore"]

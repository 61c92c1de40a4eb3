"""A real redis-server on a free loopback port, for the tests of what replicas share."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from provider_redis.connection import RedisConnection
from provider_redis.settings import RedisSettings

EXECUTABLE = shutil.which("redis-server")

needs_redis = [
    pytest.mark.redis,
    pytest.mark.skipif(EXECUTABLE is None, reason="redis-server is not installed"),
]


class RedisServer:
    """One that writes every change to the disk, so that it can be killed.

    Args:
        folder: Of its data.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"--port {self._port} --bind 127.0.0.1 --dir {self._folder} --save ''"
        durable = "--appendonly yes --appendfsync always --logfile redis.log"
        words = [word.strip("'") for word in f"{options} {durable}".split()]
        self._process = subprocess.Popen([EXECUTABLE or "redis-server", *words])
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "redis.log").read_text()
            time.sleep(0.005)

    def kill(self) -> None:
        """End it as a machine's loss would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let it take connections and answer nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def connect(self, prefix: str, **settings: object) -> RedisConnection:
        """The way to it, for tests whose keys begin alike."""
        values = {"url": self.url, "prefix": prefix, "timeout_s": 5.0, **settings}
        return RedisConnection(RedisSettings.model_validate(values))

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as client:
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """Run one until the context ends."""
    with TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()

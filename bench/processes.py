"""Servers in processes of their own, as a user starts them: ready when they are handed out."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

KEY = "sk-bench-start-key"
PROVIDER = str(Path(sys.executable).with_name("provider"))
_POLL_S = 0.005


@contextmanager
def serve_provider(*options: str, **environment: str) -> Iterator[int]:
    """Run `provider serve` with a data folder of its own and the key `KEY`; yield the port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as data_dir:
        command = [PROVIDER, "serve", "--port", str(port), "--data-dir", data_dir, *options]
        environment = {"PROVIDER_API_KEY": KEY, **environment}
        with run_server(command, port, "/readyz", environment):
            yield port


@contextmanager
def run_server(
    command: Sequence[str], port: int, ready_path: str, environment: dict[str, str]
) -> Iterator[None]:
    """Run a server, mute, from when it is ready until the block ends.

    Raises:
        RuntimeError: It ended instead.
    """
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},  # noqa: TID251 - passed on, not read
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _is_ready(f"http://127.0.0.1:{port}{ready_path}"):
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode}")
            time.sleep(_POLL_S)
        yield
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310 - a loopback URL
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False

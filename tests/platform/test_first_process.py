"""Stop signals for the first process of a container, from its beginning on.

The kernel drops what such a process does not handle yet (pid_namespaces(7)), so it is run as the
first of a namespace wherever the machine lets us make one, as root or as anybody. Where it does
not, each test says so in its name, and shows less.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from tests.serving import KEY

ROOT = Path(__file__).parents[2]
_UNSHARE = ("unshare", "--pid", "--fork", "--kill-child")
_AS_ANYBODY = (*_UNSHARE, "--user", "--map-root-user")
_IMAGE = (ROOT / "infra/docker/onnxruntime.Dockerfile").read_text(encoding="utf-8")
ENTRYPOINT = json.loads(re.findall(r"^ENTRYPOINT (.+)$", _IMAGE, re.MULTILINE)[-1])
_POLL_S = 0.001
_DEFAULT = 128 + SIGTERM  # of a process that does not handle it, told by its init


def _namespace() -> tuple[str, ...]:
    """What runs a command as the first process of a namespace; nothing if none may be made."""
    for command in (_UNSHARE, _AS_ANYBODY):
        with suppress(OSError):
            if not subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
                return command
    return ()


_NAMESPACE = _namespace()
as_first = pytest.mark.parametrize(
    "namespace",
    [pytest.param(_NAMESPACE, id="first" if _NAMESPACE else "NOT_FIRST_for_unshare_is_forbidden")],
)
needs_tini = pytest.mark.skipif(shutil.which("tini") is None, reason="tini is not installed")


@dataclass
class Container:
    """What runs in it, from outside.

    Attributes:
        first: The id of its first process.
    """

    process: asyncio.subprocess.Process
    first: int
    log: Path

    @property
    def server(self) -> int | None:
        """The id of the server's process, once its interpreter has been started."""
        for pid in (self.first, *_children(self.first)):
            if b"python" in _read(pid, "cmdline"):
                return pid
        return None

    @property
    def has_init(self) -> bool:
        """Whether the first process is an init that has begun another, not what makes it one."""
        is_init = _read(self.first, "cmdline").startswith(ENTRYPOINT[0].encode())
        return is_init and bool(_children(self.first))

    def has_mapped(self, library: bytes) -> bool:
        """Whether the server has imported something compiled."""
        return self.server is not None and library in _read(self.server, "maps")

    def has_logged(self, event: str) -> bool:
        """Whether there is a line of an event."""
        return f'"event":"{event}"' in self.log.read_text(encoding="utf-8")

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until something holds; the suite's time limit ends a wait in vain."""
        while not condition():
            assert self.process.returncode is None
            await asyncio.sleep(_POLL_S)


def _read(pid: int, name: str) -> bytes:
    """A file of the process's in `/proc`; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _children(pid: int) -> list[int]:
    return [int(child) for child in _read(pid, f"task/{pid}/children").split()]


@asynccontextmanager
async def container(
    folder: Path, namespace: tuple[str, ...], *command: str
) -> AsyncIterator[Container]:
    """Start one that serves the model in the package."""
    log = folder / "log"
    with log.open("wb") as out, (folder / "err").open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            *namespace,
            *command,
            "serve",
            cwd=folder,
            env={
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
                "PYTHONPATH": ":".join(map(str, (ROOT, ROOT / "plugins", ROOT / "handlers"))),
                "PROVIDER_PLUGINS": "starter,onnxruntime",
                "PROVIDER_PORT": "0",
                "PROVIDER_API_KEY": KEY,
                "PROVIDER_DATA_DIR": str(folder / "data"),
                "PROVIDER_LOGGING__FORMAT": "json",
            },
            stdout=out,
            stderr=err,
        )
    try:
        first = process.pid
        while namespace and not _children(process.pid):  # noqa: ASYNC110 - `unshare` tells nobody
            await asyncio.sleep(_POLL_S)
        if namespace:
            (first,) = _children(process.pid)
        yield Container(process, first, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


STAGES: dict[str, tuple[Callable[[Container], Any], set[int]]] = {
    "init": (lambda it: it.has_init, {_DEFAULT, 0}),
    "interpreter": (lambda it: it.server is not None, {_DEFAULT, 0}),
    "imports": (lambda it: it.has_mapped(b"_pydantic_core"), {0}),
    "model": (lambda it: it.has_mapped(b"onnxruntime_pybind11"), {0}),
    "ready": (lambda it: it.has_logged("server.ready"), {0}),
}


@pytest.mark.tini
@needs_tini
@as_first
@pytest.mark.parametrize("stage", STAGES)
async def test_an_image_hears_a_stop_signal_whenever_it_comes(
    tmp_path: Path, stage: str, namespace: tuple[str, ...]
) -> None:
    """As soon as it has been started: an init is there before an interpreter can be."""
    is_reached, codes = STAGES[stage]
    async with container(tmp_path, namespace, *ENTRYPOINT) as it:
        await it.until(lambda: is_reached(it))
        os.kill(it.first, SIGTERM)
        assert await it.process.wait() in codes


@as_first
async def test_a_server_without_an_init_hears_them_before_it_imports_what_is_heavy(
    tmp_path: Path, namespace: tuple[str, ...]
) -> None:
    """Where the image is somebody else's, what is lost is what comes before that."""
    async with container(tmp_path, namespace, sys.executable, "-m", "provider_core") as it:
        await it.until(lambda: it.has_mapped(b"_pydantic_core"))
        os.kill(it.first, SIGTERM)
        assert await it.process.wait() == 0

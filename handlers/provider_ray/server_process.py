"""The replica's side: a server in a process of its own, from its start to its end.

It has a process to itself so that Ray's threads do not hold up the engine's, its lines stay whole,
and it settles what it owes even where Ray ends the replica by force. The link between the two, a
pair of sockets, is how each knows of the other: it brings the server's address, and closes when
either ends.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import aiohttp

from provider_core.server.in_process import open_session
from provider_ray.calls import Call, Head, end_to_end

# Ray kills the children of a worker that it ends, so the server is none: it is a grandchild.
_SERVE = """
import os, sys
if os.fork() == 0:
    os.setsid()
    code = "from provider_core.cli import main; main()"
    os.execv(sys.executable, [sys.executable, "-P", "-c", code, "serve"])
"""


class ServerProcess:
    """A server that answers; `start` makes one.

    Args:
        link: To its process.
        session: To its socket.
    """

    def __init__(self, link: socket.socket, session: aiohttp.ClientSession) -> None:
        self._link = link
        self._session = session
        self.is_stopping = False

    @classmethod
    async def start(cls, environment: Mapping[str, str], log_file: Path) -> "ServerProcess":
        """Start a server and wait until it serves, however long its model loads.

        Args:
            environment: Its variables, over those of this process.
            log_file: Where its lines go, behind those of others.

        Raises:
            RuntimeError: It ended before that; its standard error says why.
        """
        link = await asyncio.to_thread(_spawn, environment, log_file)
        line = await _read_line(link)
        if not line:
            link.close()
            raise RuntimeError("the server ended before it served; its standard error says why")
        return cls(link, open_session(json.loads(line)["socket_path"]))

    async def answer(self, call: Call) -> AsyncGenerator[Head | bytes, None]:
        """Have the server answer; closed early, its client has left.

        Raises:
            aiohttp.ClientError: The server ended meanwhile.
        """
        async with self._session.request(
            call.method, call.path, headers=call.headers, data=call.body or None
        ) as answer:
            yield Head(answer.status, end_to_end(tuple(answer.headers.items())))
            while piece := await answer.content.readany():
                yield piece

    async def check_ready(self) -> None:
        """Ask whether requests are served.

        Raises:
            RuntimeError: They are not; says why.
            aiohttp.ClientError: The server has ended.
        """
        async with self._session.get("/readyz") as answer:
            if answer.status != 200:
                raise RuntimeError(f"the server is not ready: {await answer.text()}")

    def stop(self) -> None:
        """Have the server end when its work has, or its grace is over."""
        self.is_stopping = True
        self._link.shutdown(socket.SHUT_WR)

    async def until_ended(self) -> None:
        """Wait for the server's end, and let go of it."""
        await _read_line(self._link)
        self._link.close()
        await self._session.close()


def _spawn(environment: Mapping[str, str], log_file: Path) -> socket.socket:
    """Start the server; returns the other end of its standard input."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    ours, its = socket.socketpair()
    with its, log_file.open("ab") as log:  # whole lines, behind whatever others append
        subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-S", "-c", _SERVE],
            stdin=its.fileno(),
            stdout=log,
            env={**os.environ, **environment},  # noqa: TID251 - handed on
            check=True,
        )
    ours.setblocking(False)  # noqa: FBT003 - the socket module takes no keyword
    return ours


async def _read_line(link: socket.socket) -> bytes:
    """Read a line; nothing if the other end closes before there is one."""
    loop = asyncio.get_running_loop()
    line = b""
    while not line.endswith(b"\n"):
        try:
            piece = await loop.sock_recv(link, 4096)
        except ConnectionResetError:  # it ended with something unread
            return b""
        if not piece:
            return b""
        line += piece
    return line

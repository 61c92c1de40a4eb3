"""The replica's side: a server in a process of its own, from its start to its end.

It has a process to itself so that Ray's threads do not hold up the engine's, its lines stay whole,
and it ends as it does anywhere else.
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

_SERVE = "from provider_core.cli import main; main()"


class ServerProcess:
    """A server that answers; `start` makes one.

    Args:
        process: The server's.
        link: Closed, it ends the server.
        session: To the server.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], link: socket.socket, session: aiohttp.ClientSession
    ) -> None:
        self._process = process
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
        process, link = await asyncio.to_thread(_spawn, environment, log_file)
        line = await _read_line(link)
        if not line:
            link.close()
            raise RuntimeError(f"the server ended with {await asyncio.to_thread(process.wait)}")
        return cls(process, link, open_session(json.loads(line)["socket_path"]))

    async def until_ended(self) -> int:
        """Wait for the server's end, and let go of it.

        Returns:
            Its exit code.
        """
        await _read_line(self._link)
        code = await asyncio.to_thread(self._process.wait)
        self._link.close()
        await self._session.close()
        return code

    async def answer(self, call: Call, window_s: float = 0) -> AsyncGenerator[Head | bytes, None]:
        """Have the server answer; closed early, its client has left.

        Args:
            call: What is asked.
            window_s: After a piece of the body, what comes within so many seconds is the next one.

        Raises:
            aiohttp.ClientError: The server ended meanwhile.
        """
        async with self._session.request(
            call.method, call.path, headers=call.headers, data=call.body or None
        ) as answer:
            yield Head(answer.status, end_to_end(tuple(answer.headers.items())))
            while piece := await answer.content.readany():
                yield piece
                if not answer.content.at_eof():
                    await asyncio.sleep(window_s)

    async def check_ready(self) -> None:
        """Ask whether requests are served.

        Raises:
            RuntimeError: They are not; says why.
            aiohttp.ClientError: The server has ended.
        """
        async with self._session.get("/readyz") as answer:
            if answer.status != 200:
                raise RuntimeError(f"the server is not ready: {await answer.text()}")

    def terminate(self) -> None:
        """Have the server end when its work has, or its grace is over."""
        self.is_stopping = True
        self._process.terminate()


def _spawn(
    environment: Mapping[str, str], log_file: Path
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the server, and keep the other end of its standard input."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    ours, its = socket.socketpair()
    with its, log_file.open("ab") as log:  # whole lines, behind whatever others append
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-P", "-c", _SERVE, "serve"],
            stdin=its.fileno(),
            stdout=log,
            env={**os.environ, **environment},  # noqa: TID251 - handed on
            start_new_session=True,  # what ends a replica by force leaves the server to settle
        )
    ours.setblocking(False)  # noqa: FBT003 - the socket module takes no keyword
    return process, ours


async def _read_line(link: socket.socket) -> bytes:
    """Read a line, or up to the end of a server that ends without one."""
    loop = asyncio.get_running_loop()
    line = b""
    while not line.endswith(b"\n"):
        piece = await loop.sock_recv(link, 4096)
        if not piece:
            return b""
        line += piece
    return line

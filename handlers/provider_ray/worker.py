"""The server's side: tells the replica that started it where it listens, and ends with it.

Standard input is one end of a pair of sockets. The replica gets one line, the address, when
requests are served. When its end closes, because it wants that or has ended, the server stops.
"""

import asyncio
import json
import os
import signal
import socket
import stat
import sys

from provider_core import ConfigurationError, Unavailable
from provider_core.server.in_process import InProcess, Worker


def make_worker() -> Worker:
    """What ties the server to its replica.

    Raises:
        ConfigurationError: No replica started this process.
    """
    if sys.stdin is None or not stat.S_ISSOCK(os.fstat(sys.stdin.fileno()).st_mode):
        raise ConfigurationError(
            "platform ray: replicas of Ray Serve start this themselves; start them with "
            "`serve run provider_ray.application:make_app`"
        )
    return _serve_replica


async def _serve_replica(process: InProcess) -> None:
    """Stop the server when the replica has gone; return when it stops for whatever reason."""
    link = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    reader, writer = await asyncio.open_connection(sock=link)
    telling = asyncio.create_task(_tell_address(process, writer))
    stopping = asyncio.create_task(process.stopping.wait())
    gone = asyncio.create_task(reader.read())
    try:
        await asyncio.wait({gone, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            signal.raise_signal(signal.SIGTERM)  # as a platform ends it: what runs is settled
            await stopping
    finally:
        for task in (telling, stopping, gone):
            task.cancel()
        writer.close()


async def _tell_address(process: InProcess, writer: asyncio.StreamWriter) -> None:
    try:
        await process.until_ready()
    except Unavailable:
        return  # the server says why itself
    writer.write(json.dumps({"socket_path": process.socket_path}).encode() + b"\n")

"""How answers come back: over connections of their own, past Ray.

Ray chooses the replica, brings it the request and counts it, for its call lasts as long as the
answer. What a replica yields through Ray costs a millisecond of processor time and more for each
piece, though. So the replica connects to the ingress, says by a ticket which request it answers,
writes the head as a line, then the body as it comes, and closes. Whether that was all is what
becomes of the call.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

from provider_ray.calls import Head

_TICKET_BYTES = 16
_CONNECT_TIMEOUT_S = 10.0
_BUFFER_BYTES = 2**18  # that an ingress holds of an answer; a head is shorter
_LAST_BYTES_S = 1.0  # after a call failed, for what was sent before


class ReplyCut(Exception):
    """An answer's connection ended before its head, or broke, or Ray cancelled the call."""


@dataclass(frozen=True, slots=True)
class ReplyAddress:
    """Where an answer goes.

    Attributes:
        ticket: Of this request; it is good for one connection.
    """

    host: str
    port: int
    ticket: bytes


class Reply:
    """An answer that is on its way.

    Args:
        address: What the replica is told.
    """

    def __init__(self, address: ReplyAddress) -> None:
        self.address = address
        self._reader: asyncio.Future[asyncio.StreamReader]
        self._reader = asyncio.get_running_loop().create_future()
        self._writer: asyncio.StreamWriter | None = None

    async def head(self) -> Head:
        """Wait for its beginning.

        Raises:
            ReplyCut: The replica ended before that.
            Exception: Whatever the call failed with.
        """
        reader = await self._reader
        try:
            status, headers = json.loads(await reader.readuntil(b"\n"))
        except (EOFError, OSError) as error:
            raise ReplyCut from error
        return Head(status, tuple((name, value) for name, value in headers))

    async def pieces(self) -> AsyncIterator[bytes]:
        """What follows, as much at a time as has come.

        Raises:
            ReplyCut: The connection broke.
        """
        reader = await self._reader
        try:
            while piece := await reader.read(_BUFFER_BYTES):
                yield piece
        except OSError as error:
            raise ReplyCut from error

    def arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the replica's connection."""
        if self._reader.done():  # nobody waits any more
            writer.transport.abort()
        else:
            self._reader.set_result(reader)
            self._writer = writer

    def note_end(self, call: asyncio.Future[None]) -> None:
        """Wait for no more than was sent if the call failed: its machine may be gone."""
        if call.cancelled() or (error := call.exception()) is None:
            return
        if not self._reader.done():
            self._reader.set_exception(error)
        asyncio.get_running_loop().call_later(_LAST_BYTES_S, self.close)

    def close(self) -> None:
        """Let go of the connection: to a replica that still writes, the client has left."""
        self._reader.cancel()
        if self._writer is not None:
            self._writer.transport.abort()


class ReplyListener:
    """Where an ingress takes the connections of all answers; `open` makes one.

    Args:
        host: Address of this machine that replicas reach.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._port = 0
        self._expected: dict[bytes, Reply] = {}
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen, on any free port."""
        self._server = await asyncio.start_server(self._accept, self._host, 0, limit=_BUFFER_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    @contextmanager
    def expect(self) -> Iterator[Reply]:
        """Expect an answer, and let go of its connection afterwards."""
        ticket = secrets.token_bytes(_TICKET_BYTES)
        reply = Reply(ReplyAddress(self._host, self._port, ticket))
        self._expected[ticket] = reply
        try:
            yield reply
        finally:
            self._expected.pop(ticket, None)
            reply.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                ticket = await reader.readexactly(_TICKET_BYTES)
        except (TimeoutError, EOFError, OSError):
            ticket = b""
        if reply := self._expected.pop(ticket, None):
            reply.arrive(reader, writer)
        else:
            writer.transport.abort()


async def send_reply(address: ReplyAddress, answer: AsyncGenerator[Head | bytes, None]) -> None:
    """Write an answer to whoever waits for it; returns when all of it has been taken.

    Args:
        address: Where to.
        answer: The head first, then pieces of the body. It is closed early if the other end leaves.

    Raises:
        OSError: The ingress cannot be reached, or has left.
        Exception: Whatever the answer fails with; the connection ends before.
    """
    async with asyncio.timeout(_CONNECT_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(address.ticket)
    try:
        if not await unless(reader.read(), _write(answer, writer)):
            raise ConnectionAbortedError("the ingress has left")
    finally:
        writer.transport.abort()  # nothing is lost: what is whole has been closed


async def _write(answer: AsyncGenerator[Head | bytes, None], writer: asyncio.StreamWriter) -> None:
    async with aclosing(answer) as pieces:
        async for piece in pieces:
            writer.write(_line(piece) if isinstance(piece, Head) else piece)
            await writer.drain()
    writer.close()
    await writer.wait_closed()


def _line(head: Head) -> bytes:
    return json.dumps([head.status, head.headers]).encode() + b"\n"


async def unless(
    leaving: Coroutine[Any, Any, object], working: Coroutine[Any, Any, object]
) -> bool:
    """Do some work unless somebody leaves meanwhile.

    Args:
        leaving: Ends when they have left.
        working: Is cancelled then. What it raises is raised here.

    Returns:
        Whether it was done.
    """
    left, work = asyncio.ensure_future(leaving), asyncio.ensure_future(working)
    try:
        await asyncio.wait({left, work}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
        return work.done()
    finally:
        left.cancel()
        work.cancel()
        await asyncio.gather(left, work, return_exceptions=True)

"""A server that writes what a test says, on a clock that the test moves."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"


def chunk(*payloads: bytes) -> bytes:
    """Events in one HTTP chunk."""
    body = b"".join(b"data: %s\n\n" % payload for payload in payloads)
    return b"%x\r\n%s\r\n" % (len(body), body)


def text() -> bytes:
    """An event of a completion that holds text."""
    return b'{"choices":[{"index":0,"text":"a"}]}'


def usage(num_tokens: int) -> bytes:
    """The event that counts."""
    return b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":%d}}' % num_tokens


@dataclass
class ManualClock:
    """Time that moves only when told."""

    now_s: float = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


@dataclass
class ScriptedStream:
    """Writes its parts to every client, each at its time on the clock, and goes.

    Attributes:
        parts: Seconds on the clock, and bytes; an iterator is used up by the first client.
        requests: What clients sent, whole.
        gate: Closed, it holds answers back.
        most_open: Requests that were unanswered at once, at most.
    """

    clock: ManualClock
    parts: Iterable[tuple[float, bytes]]
    requests: list[bytes] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    num_open: int = 0
    most_open: int = 0
    left: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client in a task of its own."""
        self.left.add(asyncio.create_task(self._answer(reader, writer)))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [x for x in head.split(b"\r\n") if x.startswith(b"Content-Length:")]
            length = int(lengths[0].partition(b":")[2]) if lengths else 0
            self.requests.append(head + await reader.readexactly(length))
            self.num_open += 1
            self.most_open = max(self.most_open, self.num_open)
            await self.gate.wait()
            self.num_open -= 1
            for now_s, data in self.parts:
                self.clock.now_s = now_s
                writer.write(data)
                await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def scripted_stream(
    parts: Iterable[tuple[float, bytes]], clock: ManualClock | None = None
) -> AsyncIterator[tuple[ScriptedStream, int]]:
    """The server and its port; its gate is open."""
    stream = ScriptedStream(clock or ManualClock(), parts)
    stream.gate.set()
    async with await asyncio.start_server(stream.accept, "127.0.0.1", 0) as server:
        yield stream, server.sockets[0].getsockname()[1]
        await asyncio.gather(*stream.left)

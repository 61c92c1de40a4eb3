"""Lambda's Runtime API, on loopback and on bare sockets.

aiohttp's server hides what matters here: when each chunk of an answer arrives, and the trailers
behind the last one.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from provider_lambda.events import PRELUDE_END

_PREFIX = "/2018-06-01/runtime/"


@dataclass(slots=True)
class Answer:
    """What became of an invocation.

    Attributes:
        path: Where it was posted: `response` or `error`.
        headers: Of the post, names in lower case.
        chunks: Of the body, as they came.
        trailers: Behind it.
    """

    path: str
    headers: Mapping[str, str]
    chunks: list[bytes] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.chunks)

    @property
    def prelude(self) -> Any:
        """Status and headers of a streamed answer."""
        return json.loads(self.body.partition(PRELUDE_END)[0])

    @property
    def payload(self) -> bytes:
        """What a caller gets of a streamed answer."""
        return self.body.partition(PRELUDE_END)[2]

    @property
    def error(self) -> Any:
        """What the trailers tell."""
        return json.loads(base64.b64decode(self.trailers["lambda-runtime-function-error-body"]))


class RuntimeApiServer:
    """Hands out events and keeps the answers.

    Attributes:
        answers: By the id of the invocation; `init` is the start's.
        most_waiting: Polls that waited at the same time.
        status: Of its answers.
        cut_after: Chunks of a streamed answer after which its connection is cut.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.num_waiting = 0
        self.most_waiting = 0
        self.status = 202
        self.cut_after: int | None = None
        self._port = 0
        self._events: asyncio.Queue[tuple[str, bytes, float]] = asyncio.Queue()
        self._ids = count(1)
        self._news = asyncio.Condition()
        self._connections: set[asyncio.Task[Any]] = set()

    @property
    def environment(self) -> Mapping[str, str]:
        """What Lambda sets."""
        return {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._port}",
            "AWS_LAMBDA_FUNCTION_NAME": "f",
        }

    def invoke(self, event: object, *, timeout_s: float = 60) -> str:
        """Have an invocation waiting, of an object or of bytes; its id."""
        request_id = f"invocation-{next(self._ids)}"
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        self._events.put_nowait((request_id, body, time.time() + timeout_s))
        return request_id

    async def call(self, event: object, *, timeout_s: float = 60) -> Answer:
        """Invoke and wait for the answer."""
        return await self.answer(self.invoke(event, timeout_s=timeout_s))

    async def answer(self, request_id: str) -> Answer:
        """Wait until an answer has ended."""
        async with self._news:
            await self._news.wait_for(lambda: request_id in self.answers)
        return self.answers[request_id]

    async def until_asked(self, num_polls: int = 1) -> None:
        """Wait until so many polls wait."""
        async with self._news:
            await self._news.wait_for(lambda: self.num_waiting >= num_polls)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                headers = _parse_headers(head.split("\r\n")[1:])
                if method == "GET":
                    await self._next(reader, writer)
                else:
                    await self._take(path.removeprefix(_PREFIX), headers, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self._connections.discard(task)

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._connections):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _next(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._count(1)
        leaving = asyncio.ensure_future(reader.read(1))
        coming = asyncio.ensure_future(self._events.get())
        await asyncio.wait({leaving, coming}, return_when=asyncio.FIRST_COMPLETED)
        await self._count(-1)
        if not coming.done():
            coming.cancel()
            raise ConnectionError
        leaving.cancel()
        await asyncio.wait({leaving})  # or the reader would still be taken
        request_id, body, deadline_s = coming.result()
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Lambda-Runtime-Aws-Request-Id: {request_id}\r\n"
            f"Lambda-Runtime-Deadline-Ms: {round(deadline_s * 1000)}\r\n"
            f"Lambda-Runtime-Trace-Id: Root=1-{request_id}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await writer.drain()

    async def _take(
        self,
        path: str,
        headers: Mapping[str, str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        *_, request_id, kind = path.split("/")
        answer = Answer(kind, headers)
        if headers.get("transfer-encoding") == "chunked":
            await self._take_chunks(answer, reader, writer)
        else:
            answer.chunks.append(await reader.readexactly(int(headers["content-length"])))
        self.answers[request_id] = answer
        writer.write(f"HTTP/1.1 {self.status} Status\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        await self._tell()

    async def _take_chunks(
        self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            answer.chunks.append((await reader.readexactly(size + 2))[:-2])
            if self.cut_after is not None and len(answer.chunks) > self.cut_after:
                self.cut_after = None
                writer.transport.abort()
                raise ConnectionError
        while (line := (await reader.readuntil(b"\r\n")).decode().strip()) != "":
            answer.trailers.update(_parse_headers([line]))

    async def _count(self, change: int) -> None:
        self.num_waiting += change
        self.most_waiting = max(self.most_waiting, self.num_waiting)
        await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


def _parse_headers(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines if line)
    return {name.lower(): value.strip() for name, _, value in pairs}


@asynccontextmanager
async def runtime_api() -> AsyncIterator[RuntimeApiServer]:
    """Run one on a free port."""
    api = RuntimeApiServer()
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
    api._port = server.sockets[0].getsockname()[1]
    try:
        yield api
    finally:
        server.close()
        await api.close()

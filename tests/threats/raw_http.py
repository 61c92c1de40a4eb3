"""HTTP spoken byte by byte, so that a test can say what no client library would."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from tests.serving import KEY

BODY = json.dumps({"model": "test-model", "prompt": "hi"}).encode()
"""A completion that a server which says "Hello!" answers with it."""


def post(*headers: str, body: bytes = BODY, path: str = "/v1/completions") -> bytes:
    """A POST whose length and credentials are right, unless `headers` say otherwise."""
    names = {header.partition(":")[0].strip().lower() for header in headers}
    lines = [f"POST {path} HTTP/1.1"]
    if "host" not in names:
        lines.append("Host: localhost")
    if "authorization" not in names:
        lines.append(f"Authorization: Bearer {KEY}")
    if "content-type" not in names:
        lines.append("Content-Type: application/json")
    if not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


def get(path: str, *headers: str, version: str = "1.1") -> bytes:
    """A GET with the key."""
    lines = [f"GET {path} HTTP/{version}", "Host: localhost", f"Authorization: Bearer {KEY}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1")


def chunked(*chunks: bytes) -> bytes:
    """A body in chunks (RFC 9112 section 7.1)."""
    framed = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    return b"".join(framed) + b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class RawReply:
    """One response as it came."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object, checked for its four keys."""
        assert self.headers["content-type"].partition(";")[0] == "application/json"
        assert self.headers["x-request-id"]
        error: dict[str, Any] = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        return error


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, **options: Any) -> Self:
        """Open a connection to a server of this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, **options))

    async def send(self, data: bytes) -> Self:
        """Send bytes; a peer that stopped listening is no error."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            pass
        return self

    async def reply(self) -> RawReply:
        """Read one whole response."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines if line)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        if headers.get("transfer-encoding") == "chunked":
            body = await self._chunks()
        else:
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return RawReply(int(status_line.split(" ", 2)[1]), headers, body)

    async def read(self, num_bytes: int) -> bytes:
        """Read up to so many bytes."""
        return await self._reader.read(num_bytes)

    async def is_closed(self) -> bool:
        """Wait for the server's end of the connection; `False` if it sends something instead."""
        try:
            return await self._reader.read(1) == b""
        except ConnectionError:
            return True

    def reset(self) -> None:
        """Drop the connection at once."""
        self.writer.transport.abort()

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self._reader.readline(), 16):
            body += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
        return body


@asynccontextmanager
async def connected(port: int, **options: Any) -> AsyncIterator[RawClient]:
    """A connection that is closed afterwards."""
    client = await RawClient.connect(port, **options)
    try:
        yield client
    finally:
        client.reset()


async def answer(port: int, data: bytes) -> RawReply:
    """The first response to some bytes."""
    async with connected(port) as client:
        await client.send(data)
        return await client.reply()


async def last_answer(port: int, data: bytes) -> RawReply:
    """The first response to some bytes, after which the server must close the connection."""
    async with connected(port) as client:
        await client.send(data)
        reply = await client.reply()
        assert await client.is_closed()
        return reply

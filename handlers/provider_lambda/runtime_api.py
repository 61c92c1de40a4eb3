"""Lambda's Runtime API: invocations come from it, answers and errors go to it.

Answers are streamed over a connection of their own, written by hand: what goes wrong amid a stream
is told in trailers (RFC 9112 section 7.1.2), which aiohttp's client cannot send.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp

_VERSION = "/2018-06-01/runtime"
_ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
_ERROR_BODY = "Lambda-Runtime-Function-Error-Body"
_STREAM_TYPE = "application/vnd.awslambda.http-integration-response"


class RuntimeApiError(Exception):
    """The Runtime API refused something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One event to answer.

    Attributes:
        deadline_s: When Lambda ends it, in Unix time.
        trace_id: Of AWS X-Ray; empty if there is none.
        event: JSON.
    """

    request_id: str
    deadline_s: float
    trace_id: str
    event: bytes


class RuntimeApi:
    """A client of the Runtime API; an asynchronous context manager.

    Args:
        address: Host and port.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._session = aiohttp.ClientSession(
            f"http://{address}",
            # As many polls as there may be, and no connection that ended while we were frozen.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def next(self) -> Invocation:
        """Wait for an invocation; Lambda freezes the process meanwhile.

        Raises:
            RuntimeApiError: There will be none.
        """
        async with self._session.get(f"{_VERSION}/invocation/next") as response:
            body = await response.read()
            _check(response)
            headers = response.headers
            return Invocation(
                request_id=headers["Lambda-Runtime-Aws-Request-Id"],
                deadline_s=int(headers["Lambda-Runtime-Deadline-Ms"]) / 1000,
                trace_id=headers.get("Lambda-Runtime-Trace-Id", ""),
                event=body,
            )

    async def respond(self, invocation: Invocation, body: bytes) -> None:
        """Answer whole.

        Raises:
            RuntimeApiError: It was refused; too large, for instance.
        """
        path = f"{_VERSION}/invocation/{invocation.request_id}/response"
        headers = {"Content-Type": "application/json"}
        async with self._session.post(path, data=body, headers=headers) as response:
            _check(response)

    async def stream(
        self, invocation: Invocation, prelude: bytes, chunks: AsyncIterator[bytes]
    ) -> None:
        """Answer in pieces as they come.

        Args:
            invocation: What is answered.
            prelude: Sent first.
            chunks: The body; what it raises ends the answer with trailers.

        Raises:
            RuntimeApiError: It was refused.
            OSError: The connection broke.
            aiohttp.ClientError: The body ended early, and Lambda knows.
        """
        host, _, port = self._address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port or 80))
        try:
            writer.write(self._stream_head(invocation) + _chunk(prelude))
            await writer.drain()
            trailers: Mapping[str, str] = {}
            failure: Exception | None = None
            try:
                async for chunk in chunks:
                    writer.write(_chunk(chunk))
                    await writer.drain()
            except aiohttp.ClientError as error:
                failure = error
                trailers = _error_trailers("Provider.StreamBroken", "the answer ended early")
            lines = "".join(f"{name}: {value}\r\n" for name, value in trailers.items())
            writer.write(f"0\r\n{lines}\r\n".encode())
            await writer.drain()
            status_line = await reader.readline()
            if failure is not None:
                raise failure
            if not status_line.startswith(b"HTTP/1.1 2"):
                raise RuntimeApiError(f"a streamed answer was refused: {status_line.decode()!r}")
        finally:
            writer.close()

    async def fail(self, invocation: Invocation, kind: str, message: str) -> None:
        """Answer with an error of the function."""
        await self._report(f"invocation/{invocation.request_id}/error", kind, message)

    async def fail_start(self, kind: str, message: str) -> None:
        """Say why the function cannot start."""
        await self._report("init/error", kind, message)

    async def _report(self, path: str, kind: str, message: str) -> None:
        body = {"errorMessage": message, "errorType": kind, "stackTrace": []}
        async with self._session.post(
            f"{_VERSION}/{path}", json=body, headers={_ERROR_TYPE: kind}
        ) as response:
            _check(response)

    def _stream_head(self, invocation: Invocation) -> bytes:
        lines = [
            f"POST {_VERSION}/invocation/{invocation.request_id}/response HTTP/1.1",
            f"Host: {self._address}",
            f"Content-Type: {_STREAM_TYPE}",
            "Lambda-Runtime-Function-Response-Mode: streaming",
            "Transfer-Encoding: chunked",
            f"Trailer: {_ERROR_TYPE}, {_ERROR_BODY}",
            "",
            "",
        ]
        return "\r\n".join(lines).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""  # an empty one would end the body


def _error_trailers(kind: str, message: str) -> dict[str, str]:
    body = json.dumps({"errorMessage": message, "errorType": kind}).encode()
    return {_ERROR_TYPE: kind, _ERROR_BODY: base64.b64encode(body).decode()}


def _check(response: aiohttp.ClientResponse) -> None:
    if response.status >= 300:
        raise RuntimeApiError(f"{response.method} {response.url.path} gave {response.status}")

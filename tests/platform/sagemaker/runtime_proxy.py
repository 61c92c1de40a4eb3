"""SageMaker between a caller and its container, on loopback.

It lets through the headers that its API documents and no others, cuts streamed answers into parts
wherever it likes, frames them as an event stream, and turns every failure of the container into a
`ModelError`.
"""

import struct
from binascii import crc32
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

PASSED = (
    "Content-Type",
    "Accept",
    "X-Amzn-SageMaker-Custom-Attributes",
    "X-Amzn-SageMaker-Inference-Id",
)
_PART_BYTES = 100
_STRING = 7  # the type of a header's value


@dataclass(slots=True)
class RuntimeProxy:
    """SageMaker's data plane.

    Attributes:
        container_url: Where the container listens.
        seen: Headers of the container's answers.
    """

    container_url: str
    url: str = ""
    seen: list[Mapping[str, str]] = field(default_factory=list)

    async def until_healthy(self) -> None:
        """Ping as SageMaker does, until the container is in service."""
        async with aiohttp.ClientSession() as session:
            status = 0
            while status != 200:
                async with session.get(f"{self.container_url}/ping") as answer:
                    status = answer.status

    def make_app(self) -> web.Application:
        """Its paths."""
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/endpoints/{name}/invocations", self._invoke)
        app.router.add_post("/endpoints/{name}/invocations-response-stream", self._stream)
        return app

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        async with (
            aiohttp.ClientSession() as session,
            self._ask(session, request, await request.read()) as answer,
        ):
            body = await answer.read()
            if answer.status >= 400:
                return _model_error(answer.status, body)
            return web.Response(body=body, headers=_documented(answer.headers))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        async with (
            aiohttp.ClientSession() as session,
            self._ask(session, request, await request.read()) as answer,
        ):
            if answer.status >= 400:
                return _model_error(answer.status, await answer.read())
            names = {
                "Content-Type": "X-Amzn-SageMaker-Content-Type",
                "X-Amzn-SageMaker-Custom-Attributes": "X-Amzn-SageMaker-Custom-Attributes",
            }
            headers = {names[name]: value for name, value in _documented(answer.headers).items()}
            response = web.StreamResponse(
                headers={**headers, "Content-Type": "application/vnd.amazon.eventstream"}
            )
            await response.prepare(request)
            async for part in answer.content.iter_chunked(_PART_BYTES):
                await response.write(frame_part(part))
            await response.write_eof()
            return response

    def _ask(
        self, session: aiohttp.ClientSession, request: web.Request, body: bytes
    ) -> "aiohttp.client._RequestContextManager":
        headers = {name: request.headers[name] for name in PASSED if name in request.headers}
        return session.post(f"{self.container_url}/invocations", data=body, headers=headers)


def frame_part(payload: bytes) -> bytes:
    """One `PayloadPart` of an event stream, as AWS's event stream encoding has it."""
    headers = b"".join(
        struct.pack("!B", len(name)) + name + struct.pack("!BH", _STRING, len(value)) + value
        for name, value in (
            (b":event-type", b"PayloadPart"),
            (b":content-type", b"application/octet-stream"),
            (b":message-type", b"event"),
        )
    )
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    prelude += struct.pack("!I", crc32(prelude))
    message = prelude + headers + payload
    return message + struct.pack("!I", crc32(message))


def _documented(headers: Mapping[str, str]) -> dict[str, str]:
    names = ("Content-Type", "X-Amzn-SageMaker-Custom-Attributes")
    return {name: headers[name] for name in names if name in headers}


def _model_error(status: int, body: bytes) -> web.Response:
    return web.json_response(
        {
            "Message": "Received error from primary",
            "OriginalStatusCode": status,
            "OriginalMessage": body.decode(),
            "LogStreamArn": "arn:aws:logs:::",
        },
        status=424,
        headers={"x-amzn-errortype": "ModelError"},
    )


@asynccontextmanager
async def runtime_proxy(container_url: str) -> AsyncIterator[RuntimeProxy]:
    """Run one on a free port."""
    proxy = RuntimeProxy(container_url)
    runner = web.AppRunner(proxy.make_app(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield proxy
    finally:
        await runner.cleanup()

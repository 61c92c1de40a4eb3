"""The outermost layer: what escapes a handler leaves as one well-formed answer, or as none."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from provider_core.server.connection import connection_factory
from provider_core.server.edge import Edge
from provider_core.server.operations import OPERATIONS
from provider_core.settings import ServerSettings, Settings
from tests.threats.raw_http import answer, connected, get

SECRET = "what the exception says"


async def broken(_: web.Request) -> web.StreamResponse:
    """Fail before the answer."""
    raise RuntimeError(SECRET)


async def breaking_off(request: web.Request) -> web.StreamResponse:
    """Fail within the answer."""
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b"half")
    raise RuntimeError(SECRET)


@asynccontextmanager
async def app_port(settings: Settings) -> AsyncIterator[int]:
    """Serve the two handlers behind the edge."""
    app = web.Application()
    Edge(settings).install(app)
    for base in ("/v1", "/api/v1"):
        app.router.add_get(f"{base}/broken", broken)
        app.router.add_get(f"{base}/breaking-off", breaking_off)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    assert runner.server is not None
    loop = asyncio.get_running_loop()
    factory = connection_factory(runner.server, settings.limits, loop)
    listener = await loop.create_server(factory, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await runner.cleanup()


async def test_an_unforeseen_failure_is_500_without_its_text() -> None:
    """The log has the exception, the client has the request's id."""
    with capture_logs() as lines:
        async with app_port(Settings()) as port:
            reply = await answer(port, get("/v1/broken"))
    assert reply.status == 500
    assert SECRET.encode() not in reply.body
    [failure] = [line for line in lines if line["event"] == "request.failed"]
    assert failure["request_id"] == reply.headers["x-request-id"]


async def test_the_openrouter_path_has_its_own_shape() -> None:
    """An integer for a code."""
    with capture_logs():
        async with app_port(Settings()) as port:
            reply = await answer(port, get("/api/v1/broken"))
    assert json.loads(reply.body)["error"]["code"] == 500


async def test_a_failure_within_an_answer_breaks_the_connection_off() -> None:
    """No second status line follows the half: the client must see that it is not whole."""
    with capture_logs() as lines:
        async with app_port(Settings()) as port, connected(port) as client:
            await client.send(get("/v1/breaking-off"))
            data = b""
            try:
                while piece := await client.read(4096):
                    data += piece
            except ConnectionError:
                pass
    assert data.count(b"HTTP/1.1") == 1
    assert data.endswith(b"half\r\n")
    assert [line["event"] for line in lines] == ["request.failed", "request.access"]


async def test_405_says_what_is_allowed() -> None:
    """RFC 9110 section 15.5.6."""
    async with app_port(Settings()) as port:
        reply = await answer(port, get("/v1/broken").replace(b"GET", b"POST", 1))
    assert reply.status == 405
    assert reply.headers["allow"] == "GET,HEAD"


@pytest.mark.parametrize("origin", ["http://a.example", "*"])
async def test_browsers_may_send_and_read_what_clients_use(origin: str) -> None:
    """A client library adds headers of its own; the wildcard does not cover `Authorization`."""
    settings = Settings(server=ServerSettings(cors_origins=(origin,)))
    headers = ("Origin: http://a.example", "Access-Control-Request-Method: GET")
    async with app_port(settings) as port:
        reply = await answer(port, get("/v1/broken", *headers).replace(b"GET", b"OPTIONS", 1))
    assert reply.status == 204
    assert reply.headers["access-control-allow-origin"] == origin
    assert reply.headers["access-control-allow-headers"] == "Authorization, *"
    assert "retry-after" in reply.headers["access-control-expose-headers"].lower()
    allowed = reply.headers["access-control-allow-methods"].split(", ")
    assert {operation.partition(" ")[0] for operation in OPERATIONS} | {"OPTIONS"} == set(allowed)

"""H: bodies that are too large, too slow, encoded, or never end."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.serving import KEY, Serving, saying, serving
from tests.threats.aftermath import unharmed
from tests.threats.raw_http import BODY, answer, chunked, connected, get, last_answer, post

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHUNKED = "Transfer-Encoding: chunked"
LIMIT = 65_536
TOO_LARGE = 10 * LIMIT


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Serving]:
    """A server with a small limit and little patience."""
    limits = {"max_body_bytes": LIMIT, "headers_timeout_s": 0.2, "body_timeout_s": 0.2}
    async with serving(saying("Hello!"), limits=limits) as running:
        yield running


@pytest.mark.parametrize("sent", [b"G", b"GET /livez HTTP/1.1\r\nHost: a\r\nX-A: ", post()[:-60]])
async def test_h16_slow_headers_are_408(served: Serving, sent: bytes) -> None:
    """A request whose headers began and do not end is refused, and the connection closed."""
    async with unharmed(served):
        reply = await last_answer(served.port, sent)
    assert reply.status == 408
    assert reply.error["code"] == "request_timeout"


async def test_h16_slow_headers_after_a_good_request_are_408(served: Serving) -> None:
    """The second request of a connection has no more time than the first."""
    async with unharmed(served), connected(served.port) as client:
        await client.send(get("/livez"))
        assert (await client.reply()).status == 200
        await client.send(b"GET /livez HTT")
        assert (await client.reply()).status == 408
        assert await client.is_closed()


async def test_h16_the_clock_stops_when_the_headers_are_complete(served: Serving) -> None:
    """A connection that paused within its headers lives on once they came."""
    head, tail = get("/livez")[:20], get("/livez")[20:]
    async with unharmed(served), connected(served.port) as client:
        await client.send(head)
        await asyncio.sleep(0.05)
        await client.send(tail)
        assert (await client.reply()).status == 200
        await asyncio.sleep(0.3)  # the time-out under test
        await client.send(get("/livez"))
        assert (await client.reply()).status == 200


async def test_h16_a_body_in_two_parts_starts_no_clock_for_headers(served: Serving) -> None:
    """An idle connection is not cut because its last body came in pieces."""
    request = post()
    async with unharmed(served, num_events=1), connected(served.port) as client:
        await client.send(request[:-5])
        await asyncio.sleep(0.01)
        await client.send(request[-5:])
        assert (await client.reply()).status == 200
        await asyncio.sleep(0.3)  # the time-out under test
        await client.send(get("/livez"))
        assert (await client.reply()).status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        post("Content-Length: 999", body=b"{"),
        post(CHUNKED, body=b"1\r\n{\r\n"),
        post(body=b"{}")[:-1],
    ],
    ids=["sized", "chunked", "one-short"],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_h17_a_slow_body_is_408(served: Serving, request_bytes: bytes, path: str) -> None:
    """It is refused in time, and the connection closed."""
    request_bytes = request_bytes.replace(b"/v1/completions", path.encode())
    async with unharmed(served):
        reply = await last_answer(served.port, request_bytes)
    assert reply.status == 408
    assert reply.error["code"] == "request_timeout"
    assert reply.headers["connection"] == "close"


async def test_h7_a_body_that_breaks_in_the_middle_is_answered_once(served: Serving) -> None:
    """One 400, then the end: no second answer that belongs to nothing."""
    async with unharmed(served), connected(served.port) as client:
        await client.send(post(CHUNKED, body=b"5\r\nhello\r\n"))
        await asyncio.sleep(0.02)  # so that the body is being read
        await client.send(b"xyz\r\n" + get("/livez"))
        reply = await client.reply()
        assert (reply.status, reply.error["code"]) == (400, "bad_http")
        assert await client.is_closed()


async def test_h28_garbage_behind_a_good_request_hurts_only_itself(served: Serving) -> None:
    """What was asked before is answered, then the connection ends with a 400."""
    async with unharmed(served, num_events=1), connected(served.port) as client:
        await client.send(post())
        assert (await client.reply()).status == 200
        await client.send(b"\x16\x03\x01\r\n\r\n")
        assert (await client.reply()).error["code"] == "bad_http"
        assert await client.is_closed()


async def test_h18_a_declared_giant_is_413_at_once(served: Serving) -> None:
    """From the header alone, before a byte of it is read."""
    async with unharmed(served):
        reply = await last_answer(served.port, post("Content-Length: 2000000000", body=b""))
    assert reply.status == 413
    assert reply.error["code"] == "request_too_large"
    assert str(LIMIT) in reply.error["message"]


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, TOO_LARGE, 2_000_000 + LIMIT])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_h19_a_body_over_the_limit_is_413(
    served: Serving, size: int, *, is_chunked: bool
) -> None:
    """At the limit it is served, one byte more is refused, however it is framed."""
    body = BODY + b" " * (size - len(BODY))
    pieces = [body[start : start + 50_000] for start in range(0, size, 50_000)]
    request = post(CHUNKED, body=chunked(*pieces)) if is_chunked else post(body=body)
    is_served = size <= LIMIT
    async with unharmed(served, num_events=int(is_served)):
        reply = await answer(served.port, request)
    if is_served:
        assert reply.status == 200
    else:
        assert reply.status == 413
        assert reply.error["code"] == "request_too_large"


@pytest.mark.parametrize("body", [gzip.compress(b" " * 10**8), b"no gzip"], ids=["bomb", "broken"])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-unheard-of"])
async def test_h20_h21_h22_encoded_bodies_are_415(
    served: Serving, body: bytes, coding: str
) -> None:
    """No bomb is ever unpacked, and none that is broken is a server error."""
    async with unharmed(served):
        reply = await answer(served.port, post(f"Content-Encoding: {coding}", body=body))
    assert reply.status in {413, 415}
    assert reply.error["code"] in {"request_too_large", "unsupported_media_type"}
    assert reply.status == 415 or len(body) > LIMIT


async def test_h22_identity_is_no_encoding(served: Serving) -> None:
    """It says what would be true without it."""
    async with unharmed(served, num_events=1):
        assert (await answer(served.port, post("Content-Encoding: identity"))).status == 200


async def test_h23_a_body_of_tiny_chunks_is_served(served: Serving) -> None:
    """One byte a chunk costs memory and time in proportion, and the loop turns meanwhile."""
    body = BODY + b" " * (LIMIT - len(BODY))
    async with unharmed(served, num_events=1):
        reply = await answer(
            served.port, post(CHUNKED, body=chunked(*(body[i : i + 1] for i in range(LIMIT))))
        )
    assert reply.status == 200


async def test_h24_pipelined_requests_are_held_in_a_bounded_queue(served: Serving) -> None:
    """A client that sends thousands at once gets them answered as far as it reads."""
    count = 2_000
    most = 0

    async def watch() -> None:
        nonlocal most
        runner = served.server._runner
        assert runner is not None
        assert runner.server is not None
        while True:
            queues = [len(connection._messages) for connection in runner.server.connections]
            most = max([most, *queues])
            await asyncio.sleep(0)

    async with unharmed(served), connected(served.port) as client:
        watching = asyncio.create_task(watch())
        sending = asyncio.create_task(client.send(get("/livez") * count))
        for _ in range(count):
            assert (await client.reply()).status == 200
        await sending
        watching.cancel()
    assert most <= 32


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=" + "x" * 70,
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "text/html",
        "",
    ],
)
async def test_h25_no_endpoint_reads_forms(served: Serving, content_type: str) -> None:
    """A boundary that never ends is not even looked for."""
    async with unharmed(served):
        reply = await answer(
            served.port, post(f"Content-Type: {content_type}", body=b"--x\r\n" * 5000)
        )
    assert reply.status == 415
    assert reply.error["code"] == "unsupported_media_type"


async def test_expect_100_continue_is_answered_before_the_body_comes(served: Serving) -> None:
    """As curl asks for it with a large body."""
    request = post("Expect: 100-continue")
    async with unharmed(served, num_events=1), connected(served.port) as client:
        await client.send(request[: -len(BODY)])
        assert await client.read(64) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(BODY)
        assert (await client.reply()).status == 200


async def test_a_connection_outlives_a_refused_request(served: Serving) -> None:
    """A 4xx whose body was read whole does not cost the client its connection."""
    bad = [b"{", b"[]", b'{"model": 1}', b'{"model": "nobody", "prompt": "hi"}']
    async with unharmed(served, num_events=1), connected(served.port) as client:
        for body in bad:
            await client.send(post(body=body))
            assert 400 <= (await client.reply()).status < 500
        await client.send(post("Authorization: Bearer sk-nobody-knows-this"))
        assert (await client.reply()).status == 401
        await client.send(get("/v1/nowhere"))
        assert (await client.reply()).status == 404
        await client.send(post())
        assert (await client.reply()).status == 200


@pytest.mark.parametrize("path", ["/v1/models", "/livez", "/v1/nowhere"])
async def test_head_has_the_headers_of_get_and_no_body(served: Serving, path: str) -> None:
    """Also of an error."""
    async with unharmed(served), connected(served.port) as client:
        await client.send(get(path))
        full = await client.reply()
        await client.send(get(path).replace(b"GET", b"HEAD", 1))
        head = (await client.read(4096)).decode()
    assert head.endswith("\r\n\r\n")
    assert f"HTTP/1.1 {full.status} " in head
    assert f"Content-Length: {len(full.body)}" in head


@pytest.mark.parametrize("stream", [False, True])
async def test_http_1_0_is_answered_and_closed(served: Serving, *, stream: bool) -> None:
    """Unframed, a stream ends with the connection; an error has a length."""
    body = json.dumps({"model": "test-model", "prompt": "hi", "stream": stream}).encode()
    request = post(body=body).replace(b"HTTP/1.1", b"HTTP/1.0")
    async with unharmed(served, num_events=1), connected(served.port) as client:
        await client.send(request)
        data = b""
        while piece := await client.read(65_536):
            data += piece
    head, _, payload = data.partition(b"\r\n\r\n")
    assert b" 200 OK" in head
    assert b"chunked" not in head.lower()
    assert payload.endswith(b"data: [DONE]\n\n") if stream else json.loads(payload)
    async with unharmed(served):
        reply = await last_answer(served.port, request.replace(KEY.encode(), b"x" * len(KEY)))
    assert reply.status == 401
    assert reply.error["code"] == "invalid_api_key"

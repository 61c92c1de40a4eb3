"""H: connections that stall, break, crowd or come from the wrong place."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from aiohttp import web

from tests.serving import Serving, saying, scripted_runner, serving
from tests.threats.aftermath import canary, no_complaints, unharmed
from tests.threats.raw_http import RawClient, answer, connected, get, post

ROOT = Path(__file__).parents[2]
ENDLESS = {"model": "test-model", "prompt": "hi", "max_tokens": 30_000, "ignore_eos": True}

SMOKE = """
import asyncio
from tests.serving import serving
from tests.threats.raw_http import BODY, answer, chunked, post

async def main():
    async with serving(limits={"body_timeout_s": 0.2, "max_body_bytes": 4096}) as served:
        for request in (
            post(),
            post(body=b"{"),
            post("Content-Type: multipart/form-data; boundary=x", body=b"--x"),
            post("Content-Length: 99", body=b"{"),
            post(body=b" " * 5000),
            post("Transfer-Encoding: chunked", body=b"-1" + chunked(BODY)),
            post("Authorization: Bearer nobody"),
            post(),
        ):
            print((await answer(served.port, request)).status)

asyncio.run(main())
"""


async def test_h26_nothing_rests_on_assertions() -> None:
    """Under `python -O` bad requests end as they do otherwise."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-O", "-c", SMOKE, cwd=ROOT, stdout=subprocess.PIPE, env={"PYTHONPATH": "."}
    )
    stdout, _ = await process.communicate()
    statuses = [int(line) for line in stdout.split(b"\n") if line.isdigit()]
    assert statuses == [200, 400, 415, 408, 413, 400, 401, 200]


@asynccontextmanager
async def stalled_client(served: Serving, request: bytes) -> AsyncIterator[None]:
    """A client whose window is small and that reads nothing."""
    served.server._listeners.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.connect(("127.0.0.1", served.port))  # the kernel accepts; the loop need not turn
    client = RawClient(*await asyncio.open_connection(sock=sock, limit=1))
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport too
    await client.send(request)
    yield
    client.reset()


def connections(served: Serving) -> list[web.RequestHandler]:
    """The server's open connections."""
    runner = served.server._runner
    assert runner is not None
    assert runner.server is not None
    return runner.server.connections


async def all_connections_are_gone(served: Serving) -> None:
    """Wait until the server holds none."""
    await served.wait_until(lambda: not connections(served))


def unsent_bytes(served: Serving) -> int:
    """What the server keeps for its clients outside the kernel."""
    transports = [connection.transport for connection in connections(served)]
    return max((t.get_write_buffer_size() for t in transports if t is not None), default=0)


async def test_h31_a_stream_that_nobody_reads_is_cut_and_settled() -> None:
    """Little is kept for the client; after the stall its work ends and is billed as cancelled."""
    limits = {"write_stall_s": 0.2, "write_buffer_bytes": 4096}
    body = json.dumps({**ENDLESS, "stream": True}).encode()
    most = 0
    async with serving(scripted_runner(), max_model_len=32_768, limits=limits) as served:
        with no_complaints():
            async with stalled_client(served, post(body=body)):
                await served.wait_until(lambda: bool(served.server.dispatcher.runs))
                while not served.usage.events:
                    most = max(most, unsent_bytes(served))
                    await asyncio.sleep(0.001)
                await served.settled()
            [event] = served.usage.events
            assert event["status"] == "cancelled"
            assert 0 < event["completion_tokens"] < 30_000
            assert 4096 < most < 3 * 4096
            assert (await answer(served.port, get("/livez"))).status == 200


async def test_h31_a_whole_answer_that_nobody_reads_is_cut() -> None:
    """A connection that takes none of its answer is given up after the stall."""
    limits = {"write_stall_s": 0.2}
    body = json.dumps({**ENDLESS, "max_tokens": 5_000, "logprobs": 5}).encode()
    async with serving(scripted_runner(), max_model_len=32_768, limits=limits) as served:
        with no_complaints():
            async with stalled_client(served, post(body=body)):
                await served.wait_until(lambda: bool(served.usage.events))
                await all_connections_are_gone(served)
            assert (await answer(served.port, get("/livez"))).status == 200


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_h32_a_request_may_break_off_anywhere(how: str) -> None:
    """Nothing is run for it, nothing is kept."""
    request = post()
    async with serving(saying("Hello!")) as served, unharmed(served):
        for end in range(0, len(request), 7):
            client = await (await RawClient.connect(served.port)).send(request[:end])
            if how == "rst":
                client.reset()
            else:
                client.writer.write_eof()
                await client.is_closed()
                client.reset()
        await all_connections_are_gone(served)


@pytest.mark.parametrize("stream", [False, True])
async def test_h32_an_answer_may_break_off_anywhere(*, stream: bool) -> None:
    """Each generation ends in one usage event, of a client that left or of one that did not."""
    body = json.dumps({"model": "test-model", "prompt": "hi", "stream": stream}).encode()
    lengths = [1, 2, 50, 200, 300, 500, 800, 1200, 1500]
    async with serving(saying("Hello!")) as served:
        async with unharmed(served, num_events=len(lengths)):
            for length in lengths:
                client = await (await RawClient.connect(served.port)).send(post(body=body))
                await client.read(length)
                client.reset()
        events = served.usage.events[: len(lengths)]
        assert {event["status"] for event in events} <= {"ok", "cancelled"}
        assert len({event["generation_id"] for event in events}) == len(lengths)
        assert all(later["seq"] == event["seq"] + 1 for event, later in pairwise(events))


async def test_h33_idle_connections_keep_nobody_out() -> None:
    """Beyond the cap a new one takes the place of the one that has been idle longest."""
    async with serving(saying("Hello!"), limits={"max_connections": 4}) as served:
        for start in (b"", b"GET /livez HTTP/1.1\r\nHost: a\r\n"):
            idle = []
            for _ in range(40):
                idle.append(await (await RawClient.connect(served.port)).send(start))
                assert len(connections(served)) <= 5  # one of them may be closing
            assert (await answer(served.port, post())).status == 200
            assert await idle[0].is_closed()
            for client in idle:
                client.reset()
        await all_connections_are_gone(served)
        await canary(served)


async def test_h33_connections_beyond_the_cap_are_refused() -> None:
    """In JSON and at once, when all others have requests; room is found again after them."""
    may_run = threading.Event()
    async with serving(
        saying("Hello!", on_execute=lambda _: may_run.wait()), limits={"max_connections": 4}
    ) as served:
        busy = [await (await RawClient.connect(served.port)).send(post()) for _ in range(4)]
        await served.wait_until(lambda: len(served.server.dispatcher.runs) == 4)
        for _ in range(20):
            async with connected(served.port) as client:
                reply = await client.reply()
                assert reply.status == 429
                assert reply.error["code"] == "overloaded"
                assert reply.headers["retry-after"] == "1"
                assert await client.is_closed()
        may_run.set()
        for client in busy:
            assert (await client.reply()).status == 200
        await canary(served)
        for client in busy:
            client.reset()


METRICS_STRANGERS = [
    "Origin: http://evil.example",
    "Host: evil.example",
    "Host: 8.8.8.8",
    "Host: localhost.evil.example",
    "X-Forwarded-For: 8.8.8.8",
    "Forwarded: for=8.8.8.8",
    "X-Real-IP: 8.8.8.8",
]


@pytest.mark.parametrize("header", METRICS_STRANGERS)
async def test_h34_metrics_are_for_this_machine_only(header: str) -> None:
    """A browser, a proxy, and a name that was rebound to loopback find nothing there."""
    async with serving(saying("Hello!")) as served:
        request = get("/metrics", header)
        if header.startswith("Host"):
            request = request.replace(b"Host: localhost\r\n", b"")
        reply = await answer(served.port, request)
        assert reply.status == 404
        assert reply.error["code"] == "not_found"
        reply = await answer(served.port, get("/metrics"))
        assert reply.status == 200
        assert b"provider_" in reply.body


async def test_h34_the_operators_port_is_for_this_machine_only() -> None:
    """It has `/metrics` alone, for nobody's web page; the main port has none then."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    async with serving(saying("Hello!"), server={"ops_port": port}) as served:
        assert (await answer(port, get("/metrics"))).status == 200
        assert (await answer(port, get("/metrics", "Origin: http://evil.example"))).status == 404
        reply = await answer(port, get("/v1/models"))
        assert reply.status == 404
        assert reply.error["code"] == "not_found"
        assert (await answer(served.port, get("/metrics"))).status == 404


async def test_h34_no_origin_is_allowed_unless_configured() -> None:
    """A preflight without the setting finds no route and no permission."""
    preflight = post("Origin: http://a.example", "Access-Control-Request-Method: POST", body=b"")
    preflight = preflight.replace(b"POST", b"OPTIONS", 1)
    async with serving(saying("Hello!")) as served:
        reply = await answer(served.port, preflight)
        assert reply.status == 405
        assert not any(name.startswith("access-control") for name in reply.headers)
    async with serving(saying("Hello!"), server={"cors_origins": "http://a.example"}) as served:
        reply = await answer(served.port, preflight)
        assert reply.status == 204
        assert reply.headers["access-control-allow-origin"] == "http://a.example"
        assert "credentials" not in str(reply.headers)
        reply = await answer(served.port, preflight.replace(b"http://a", b"http://b"))
        assert reply.status == 405
        assert not any(name.startswith("access-control") for name in reply.headers)
        headers = ("Origin: http://a.example", "Authorization: Bearer sk-nobody-knows-this")
        reply = await answer(served.port, post(*headers))
        assert reply.status == 401
        assert reply.headers["access-control-allow-origin"] == "http://a.example"

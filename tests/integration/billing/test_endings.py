"""Exact bills of every ending: left at any token, cancelled at any await, priced anew meanwhile."""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from provider_core import hookimpl
from provider_core.interfaces import Batch
from tests.serving import KEY, Serving, saying, serving

TEXT = "Helo!?"  # a token each letter, which all differ, and one for the end
RESET = struct.pack("ii", 1, 0)


class Steps:
    """Lets a runner take so many steps and no more.

    Attributes:
        is_stuck: It asks for one more.
    """

    def __init__(self, count: int) -> None:
        self._permits = threading.Semaphore(count)
        self.is_stuck = False

    def __call__(self, _: Batch) -> None:
        """Wait for one."""
        self.is_stuck = not self._permits.acquire(blocking=False)
        if self.is_stuck:
            self._permits.acquire(timeout=30)
            self.is_stuck = False

    def let(self, count: int) -> None:
        """Allow so many more."""
        for _ in range(count):
            self._permits.release()


async def ask(served: Serving, *, stream: bool) -> tuple[asyncio.StreamReader, socket.socket, Any]:
    """Send a completion over a connection of its own."""
    raw = socket.socket()
    raw.setblocking(False)  # noqa: FBT003 - the socket module takes no keyword
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", served.port))
    reader, writer = await asyncio.open_connection(sock=raw)
    body = json.dumps({"model": "test-model", "prompt": "abc", "max_tokens": 6, "stream": stream})
    writer.write(
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return reader, raw, writer


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_b11_a_client_that_leaves_pays_exactly_what_it_got(
    *, reset: bool, stream: bool
) -> None:
    """R3 to R5: tokens handed over before it left, none if there were none, none of whole ones."""
    steps = Steps(0)
    async with serving(saying(TEXT, on_execute=steps)) as served:
        for num_tokens in range(len(TEXT)):
            steps.let(num_tokens)
            reader, raw, writer = await ask(served, stream=stream)
            await served.wait_until(lambda: steps.is_stuck)
            if stream and num_tokens:
                got = await reader.readuntil(f'"text":"{TEXT[num_tokens - 1]}"'.encode())
                assert got.count(b'"text":"') == num_tokens
            if reset:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()
            else:
                writer.close()
            await served.wait_until(lambda: not served.server.dispatcher.runs)
            with suppress(ConnectionError):
                await writer.wait_closed()
            steps.let(1)  # the step that was under way
            await served.settled()
        events = served.usage.events
    for num_tokens, event in enumerate(events):
        delivered = num_tokens if stream else 0
        assert (event["status"], event["delivery"]) == ("cancelled", "failed")
        assert event["billing_rule"] == (("R3" if delivered else "R4") if stream else "R5")
        assert (event["completion_tokens"], event["prompt_tokens"]) == (delivered, 3)
        assert event["generated_tokens"] == num_tokens
        assert event["billable"] is bool(delivered)


class CancelsAt:
    """A middleware that cancels each request at its nth await, as a client's leaving does."""

    def __init__(self) -> None:
        self.point = 0
        self.num_awaits = 0

    @hookimpl
    def setup_app(self, app: web.Application) -> None:
        """Put it outside of all others."""
        app.middlewares.insert(0, self._cancel)

    @web.middleware
    async def _cancel(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != "/v1/completions":
            return await handler(request)
        self.num_awaits = 0
        return await _Stepped(handler(request), self._at)

    def _at(self) -> None:
        self.num_awaits += 1
        task = asyncio.current_task()
        if self.num_awaits == self.point and task is not None:
            asyncio.get_running_loop().call_soon(task.cancel)


class _Stepped:
    """An awaitable that tells of each time it waits."""

    def __init__(self, awaitable: Awaitable[web.StreamResponse], tell: Callable[[], None]) -> None:
        self._awaitable = awaitable
        self._tell = tell

    def __await__(self) -> Generator[Any, None, web.StreamResponse]:
        """Wait as it waits."""
        inner = self._awaitable.__await__()
        result: Any = None
        error: BaseException | None = None
        while True:
            try:
                waited_for = inner.send(result) if error is None else inner.throw(error)
            except StopIteration as stop:
                response: web.StreamResponse = stop.value
                return response
            self._tell()
            result, error = None, None
            try:
                result = yield waited_for
            except BaseException as exc:  # noqa: BLE001 - given on, whatever it is
                error = exc


@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_b13_cancelled_at_any_await_a_request_has_one_bill_or_none(
    *, stream: bool, journal: bool
) -> None:
    """I1 and I14: admitted means one final; nothing stays open, reserved or running."""
    cancels = CancelsAt()
    async with serving(
        saying(TEXT), plugins=(cancels,), journal={"enabled": journal, "min_free_bytes": 0}
    ) as served:
        ledger = served.server.ledger
        num_awaits = 1
        while cancels.point <= num_awaits:
            cancels.point += 1
            reader, _, writer = await ask(served, stream=stream)
            with suppress(ConnectionError):
                await reader.read()
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            await served.settled()
            await served.wait_until(lambda: ledger.num_open == 0)
            num_awaits = max(num_awaits, cancels.num_awaits)
            cancels.num_awaits = 0
        totals = ledger.totals()
    finals = [event for event in served.usage.events if event["event"] == "usage.final"]
    assert num_awaits >= 1  # for the engine; the disk may be done before anybody waits for it
    assert len(finals) == len({event["generation_id"] for event in finals}) == totals["finals"]
    assert {event["status"] for event in finals} >= {"ok", "cancelled"}
    assert cancels.point > num_awaits


async def test_b17_the_price_at_admission_is_billed() -> None:
    """A price list that changes amid a stream is for the next request."""
    steps = Steps(1)
    async with serving(saying(TEXT, on_execute=steps)) as served:
        models = served.server.models
        spec = models.find("test-model").spec
        dearer = replace(spec, prices=replace(spec.prices, prompt=Decimal("0.5"), version="new"))
        running = asyncio.create_task(served.chat(stream=True))
        await served.wait_until(lambda: steps.is_stuck)
        models.update(dearer)
        listed = await (await served.session.get(served.url + "/v1/models")).json()
        assert Decimal(listed["data"][0]["pricing"]["prompt"]) == Decimal("0.5")
        steps.let(100)
        await running
        await served.chat()
        first, second = served.usage.events
    assert first["prices"]["prompt"] == "0.000001"
    assert (second["prices"]["prompt"], second["price_version"]) == ("0.5", "new")

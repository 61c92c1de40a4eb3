"""B13: a request cancelled at each of its awaits in turn has one bill or none, and leaves nothing.

A middleware outside of all others drives the handler step by step and cancels its task at the nth
suspension, as the server does when a client leaves. Every kind of way through the server is taken:
what differs is what must be given back.
"""

import asyncio
from contextlib import suppress
from decimal import Decimal
from typing import Any

import aiohttp
import orjson
import pytest

from provider_core.testing import ScriptedEncoder
from tests.integration.keys.test_credits import add, balance, make_key
from tests.integration.keys.test_limits import CHAT
from tests.serving import Serving, saying, serving
from tests.suspensions import AtSuspension

FUNDS = Decimal(1000)
MARGIN = 2  # points tried beyond the last that was reached
MOST_POINTS = 40
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"FRESH": {}}}},
}

WAYS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "completion": ("/v1/completions", {"model": "test-model", "prompt": "abc"}, {}),
    "chat": ("/v1/chat/completions", CHAT, {}),
    "schema": ("/v1/chat/completions", {**CHAT, "response_format": SCHEMA}, {}),
    "message": ("/v1/messages", CHAT, {}),
    "fallback": ("/api/v1/chat/completions", {**CHAT, "model": "x", "models": ["test-model"]}, {}),
    "idempotent": ("/v1/chat/completions", CHAT, {"Idempotency-Key": "order-7f3a"}),
    "cached": ("/api/v1/chat/completions", CHAT, {"X-OpenRouter-Cache": "true"}),
}


def cancel() -> None:
    """Cancel whoever is about to wait."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)


async def cancel_at_each_point(
    served: Serving, cancels: AtSuspension, body: dict[str, Any], headers: dict[str, str]
) -> tuple[int, int]:
    """Send a request again and again, each time cancelled one suspension later, until none is.

    Each comes with a key and a schema that the server has not seen, so that nothing is known
    beforehand, and is sent once more in peace: what it had taken must have been given back.

    Returns:
        The greatest number of suspensions seen, and how many requests were cancelled.
    """
    most = num_cancelled = 0
    for point in range(1, MOST_POINTS):
        options = await make_key(served, account_id="acme")
        options["headers"] |= headers
        asked = orjson.loads(orjson.dumps(body).replace(b"FRESH", b"field_%d" % point))
        if "X-OpenRouter-Cache" in headers:  # cancel the repetition of an answer
            assert (await served.post(cancels.path, asked, **options)).status == 200
        cancels.point = point
        with suppress(aiohttp.ClientError):
            assert (await served.post(cancels.path, asked, **options)).status == 200
        num_cancelled += cancels.num_suspensions >= point
        most = max(most, cancels.num_suspensions)
        cancels.point = 0
        await served.settled()
        await served.wait_until(lambda: served.server.ledger.num_open == 0)
        assert (await served.post(cancels.path, asked, **options)).status == 200
        if point >= most + MARGIN:
            break
    return most, num_cancelled


@pytest.mark.parametrize("journal", [True, False], ids=["journal", "no journal"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("way", WAYS)
async def test_b13_cancelled_at_any_await_a_request_has_one_bill_or_none(
    way: str, *, stream: bool, journal: bool
) -> None:
    """I1, I7 and I14: admitted means one final; nothing stays open, reserved, taken or running."""
    path, body, headers = WAYS[way]
    cancels = AtSuspension(path, cancel)
    async with serving(
        saying('{"a":1}'),
        plugins=(cancels,),
        journal={"enabled": journal, "min_free_bytes": 0},
        limits={"concurrent_requests": 1},
        response_cache={"max_bytes": 2**20},
    ) as served:
        await add(served, str(FUNDS))
        most, num_cancelled = await cancel_at_each_point(
            served, cancels, {**body, "stream": stream}, headers
        )
        await served.settled()
        totals = served.server.ledger.totals()
        used, reserved = await balance(served)
    events = served.usage.events
    finals = [event for event in events if event["event"] == "usage.final"]
    least = 0 if way == "cached" else 3  # who asks, what that may cost, and the engine
    assert most >= num_cancelled >= least
    assert len(finals) == len({event["generation_id"] for event in finals}) == totals["finals"]
    assert {event["status"] for event in finals} <= {"ok", "cancelled"}
    assert way == "cached" or "cancelled" in {event["status"] for event in finals}
    billed = sum(Decimal(event.get("cost", "0")) for event in finals)
    taken_back = sum(Decimal(event.get("cost_delta", "0")) for event in events)
    assert (used, reserved) == (billed + taken_back, Decimal(0))


async def test_b13_encoders_are_cancelled_at_any_await_too() -> None:
    """Their requests suspend in threads and in the encoder's queue."""
    cancels = AtSuspension("/v1/embeddings", cancel)
    async with serving(
        lambda spec: ScriptedEncoder(embedding_size=4, max_model_len=spec.max_model_len),
        plugins=(cancels,),
        limits={"concurrent_requests": 1},
    ) as served:
        await add(served, str(FUNDS))
        body = {"model": "test-model", "input": ["a", "b"]}
        most, num_cancelled = await cancel_at_each_point(served, cancels, body, {})
        totals = served.server.ledger.totals()
        _, reserved = await balance(served)
    assert most >= num_cancelled >= 3
    assert {event["status"] for event in served.usage.events} == {"ok", "cancelled"}
    assert len(served.usage.events) == totals["finals"]
    assert reserved == 0

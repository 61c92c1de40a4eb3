"""Journals with records that cannot be charged: nothing else is kept out by them."""

import asyncio
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.integration.redis.test_credit_ledger import balance, final, ledgers
from tests.redis_server import RedisServer, needs_redis, redis_server

pytestmark = needs_redis

Batches = Iterator[tuple[list[Any], dict[str, int]]]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests here."""
    with redis_server() as server:
        yield server


async def test_an_event_that_cannot_be_read_keeps_no_other_out(redis: RedisServer) -> None:
    """Another version may have written it, and may read it: its file stays unread."""
    asked: list[Mapping[str, int]] = []

    def unread(known: Mapping[str, int]) -> Batches:
        asked.append(dict(known))
        strange = {"event": "usage.final", "event_id": "gen-2:final"}
        yield [final("gen-1", "0.1"), strange, final("gen-3", "0.2")], {}
        yield [], {"a.jnl": 7}
        yield [final("gen-4", "0.4")], {"b.jnl": 8}

    async with ledgers(redis, 2) as replicas:
        await replicas[0].add("acme", Decimal(1), event_id="credit-1")
        for ledger in replicas:
            with capture_logs() as logs:
                ledger.start(unread)
                assert ledger._charges._catching_up is not None
                await ledger._charges._catching_up
            skipped = [line for line in logs if line["event"] == "credits.skipped"]
            assert [line["event_id"] for line in skipped] == ["gen-2:final"]
            assert await balance(ledger) == ("1", "0.7", "0")
    assert asked == [{}, {"b.jnl": 8}]


async def test_a_journal_that_fails_in_any_way_is_said_and_closes_nothing(
    redis: RedisServer,
) -> None:
    """What waits is charged at the end all the same."""

    def unread(_: Mapping[str, int]) -> Batches:
        raise KeyError("rec")
        yield

    async with ledgers(redis, 2) as (ledger, other):
        await ledger.add("acme", Decimal(1), event_id="credit-1")
        with capture_logs() as logs:
            ledger.start(unread)
            assert ledger._charges._catching_up is not None
            await asyncio.wait([ledger._charges._catching_up])
        assert [line["event"] for line in logs if line["log_level"] == "error"] == [
            "credits.journals_unread"
        ]
        ledger.record(final("gen-1", "0.1"))
        await ledger.close()
        assert await balance(other) == ("1", "0.1", "0")

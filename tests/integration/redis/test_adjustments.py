"""Adjustments in a real Redis: on the day of the bill that they adjust."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from provider_core import InsufficientCredits
from tests.integration.redis.test_credit_ledger import final, ledgers, limited, reserve
from tests.redis_server import RedisServer, needs_redis, redis_server

pytestmark = needs_redis


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests here; each has its own keys."""
    with redis_server() as server:
        yield server


async def test_what_is_given_back_after_midnight_belongs_to_its_day(redis: RedisServer) -> None:
    """The next day's limit is no wider for it, and what was spent in all is what is left."""
    owner: dict[str, Any] = {"api_key_id": "key_l", "account_id": None}
    async with ledgers(redis) as (ledger,):
        ledger.record(final("gen-1", "0.9", days_ago=1, **owner))
        adjustment = {
            **final("gen-1", "0", **owner),
            "event": "usage.adjustment",
            "event_id": "gen-1:adj:1",
            "refers_to": "gen-1:final",
            "cost_delta": "-0.9",
        }
        ledger.record(adjustment)
        with pytest.raises(InsufficientCredits):
            await reserve(ledger, "gen-2", "1.000001", limited("1", "daily"))
        assert await ledger.reserve("gen-3", limited("1"), Decimal(1), deadline_s=60)

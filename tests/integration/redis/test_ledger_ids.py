"""Ids in a real Redis: of bills that are adjusted, and of payments that come again."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from provider_core import Conflict, InsufficientCredits
from tests.integration.redis.test_credit_ledger import balance, final, ledgers, limited, reserve
from tests.redis_server import RedisServer, needs_redis, redis_server

pytestmark = needs_redis


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests here; each has its own keys."""
    with redis_server() as server:
        yield server


@pytest.mark.parametrize(("refers_to", "left"), [("gen-1:final", "0.5"), ("gone:final", "1")])
async def test_what_is_given_back_after_midnight_belongs_to_its_day(
    redis: RedisServer, refers_to: str, left: str
) -> None:
    """As in the data folder."""
    owner: dict[str, Any] = {"api_key_id": "key_l", "account_id": None}
    async with ledgers(redis) as (ledger,):
        ledger.record(final("gen-1", "0.9", days_ago=1, **owner))
        adjustment = {
            **final("gen-1", "0", **owner),
            "event": "usage.adjustment",
            "event_id": "gen-1:adj:1",
            "refers_to": refers_to,
            "cost_delta": "-0.9",
        }
        ledger.record(final("gen-2", "0.5", **owner))
        ledger.record(adjustment)
        with pytest.raises(InsufficientCredits):
            await reserve(ledger, "gen-3", f"{Decimal(left):.1f}00001", limited("1", "daily"))
        assert await reserve(ledger, "gen-4", left, limited("1", "daily"))


@pytest.mark.parametrize(("account", "usd"), [("acme", "2"), ("other", "1"), ("acme", "-1")])
async def test_an_id_of_another_payment_is_refused(
    redis: RedisServer, account: str, usd: str
) -> None:
    """As in the data folder; ids that a first version noted are still known."""
    async with ledgers(redis) as (ledger,):
        await ledger.add("acme", Decimal(1), event_id="credit-1")
        with pytest.raises(Conflict, match="credit-1 is a payment of another"):
            await ledger.add(account, Decimal(usd), event_id="credit-1")
        await ledger.add("acme", Decimal("1.00"), event_id="credit-1")
        connection = ledger._connection
        of_first_version = connection.key("account", "acme")
        await connection.command("HSET", connection.key("payments"), "old", of_first_version)
        await ledger.add("acme", Decimal(5), event_id="old")
        assert await balance(ledger) == ("1", "0", "0")

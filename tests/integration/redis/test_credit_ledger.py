"""Credits in a real Redis: reserved, charged once, given back, whatever fails."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from typer.testing import CliRunner

from provider_core import CreditLedger, InsufficientCredits, Principal, SpendLimit, Unavailable
from provider_core.access.credit_rows import period_start
from provider_core.access.credits import CreditStore
from provider_core.access.database import AccessDatabase
from provider_core.cli import make_cli
from provider_redis.amounts import to_text, to_usd
from provider_redis.credit_ledger import RedisCreditLedger
from provider_redis.diagnosis import look
from provider_redis.settings import RedisSettings
from tests.redis_server import RedisServer, needs_redis, redis_server

pytestmark = needs_redis

ACME = Principal(api_key_id="key_a", account_id="acme")
NUMBERS = count()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests here; each has its own keys."""
    with redis_server() as server:
        yield server


@asynccontextmanager
async def ledgers(
    redis: RedisServer, num: int = 1, **options: object
) -> AsyncIterator[list[RedisCreditLedger]]:
    """Those of several replicas."""
    prefix = f"test-{next(NUMBERS)}"
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(num):
            ledger = RedisCreditLedger(redis.connect(prefix, **options), event_retention_days=7)
            stack.push_async_callback(ledger.close)
            made.append(ledger)
        yield made


def final(name: str, cost: str, *, days_ago: float = 0, **fields: Any) -> dict[str, Any]:
    """A usage event, as far as it matters here."""
    at = datetime.now(UTC) - timedelta(days=days_ago)
    return {
        "event": "usage.final",
        "event_id": f"{name}:final",
        "generation_id": name,
        "timestamp": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "api_key_id": "key_a",
        "account_id": "acme",
        "model": "m",
        "cost": cost,
        **fields,
    }


def limited(usd: str, reset: Any = None) -> Principal:
    """A key with a limit."""
    return Principal(api_key_id="key_l", spend_limit=SpendLimit(Decimal(usd), reset))


async def reserve(
    ledger: RedisCreditLedger, name: str, usd: str, principal: Principal = ACME
) -> bool:
    """For a request that may take a minute."""
    return await ledger.reserve(name, principal, Decimal(usd), deadline_s=60)


async def balance(ledger: RedisCreditLedger) -> tuple[str, str, str]:
    """Bought, used, reserved."""
    found = await ledger.balance("acme")
    assert found is not None
    return f"{found.bought:f}", f"{found.used:f}", f"{found.reserved:f}"


async def test_a_request_reserves_is_charged_and_gives_the_rest_back(redis: RedisServer) -> None:
    """Reserve, settle, release; seen by every replica."""
    async with ledgers(redis, 2) as (one, other):
        await one.add("acme", Decimal(1), event_id="credit-1")
        assert await reserve(one, "gen-1", "0.60")
        assert await balance(other) == ("1", "0", "0.6")
        with pytest.raises(InsufficientCredits, match="credits do not cover"):
            await reserve(other, "gen-2", "0.41")
        one.record(final("gen-1", "0.000000123456789"))
        assert await balance(one) == ("1", "0.000000123456789", "0")
        assert await reserve(other, "gen-3", "0.99")
        other.release("gen-3")
        assert await balance(other) == ("1", "0.000000123456789", "0")


async def test_b21_of_64_requests_for_the_credit_of_one_exactly_one_is_admitted(
    redis: RedisServer,
) -> None:
    """However they race over two replicas."""
    async with ledgers(redis, 2) as replicas:
        await replicas[0].add("acme", Decimal("0.5"), event_id="credit-1")
        answers = await asyncio.gather(
            *(reserve(replicas[i % 2], f"gen-{i}", "0.3") for i in range(64)),
            return_exceptions=True,
        )
    assert [answer for answer in answers if answer is True] == [True]
    assert sum(isinstance(answer, InsufficientCredits) for answer in answers) == 63


async def test_an_event_charges_once(redis: RedisServer) -> None:
    """However often it comes, from whom, and a credit of the same id counts once, too."""
    async with ledgers(redis, 2) as replicas:
        for _ in range(3):
            for ledger in replicas:
                await ledger.add("acme", Decimal(1), event_id="credit-1")
                ledger.record(final("gen-1", "0.25"))
        adjustment = {
            **final("gen-1", "0"),
            "event": "usage.adjustment",
            "event_id": "gen-1:adj:1",
            "cost_delta": "-0.25",
        }
        for ledger in replicas:
            ledger.record(adjustment)
            assert (await balance(ledger))[0] == "1"
        assert await balance(replicas[0]) == ("1", "0", "0")
        found = await replicas[1].movements("acme")
    kinds = [(movement.kind, str(movement.usd)) for movement in found]
    assert sorted(kinds) == [("adjustment", "0.25"), ("charge", "-0.25"), ("credit", "1")]


async def test_an_account_without_credits_pays_later(redis: RedisServer) -> None:
    """Nothing is reserved for it, and none is asked of a key without account and limit."""
    async with ledgers(redis) as (ledger,):
        assert not await reserve(ledger, "gen-1", "1000")
        assert not await reserve(ledger, "gen-2", "1000", Principal(api_key_id="key_fixed"))
        assert await ledger.balance("acme") is None
        assert ledger._reserved == {}


async def test_a_negative_balance_refuses_free_requests_too(redis: RedisServer) -> None:
    """As OpenRouter does; and a limit of nothing (A14)."""
    async with ledgers(redis) as (ledger,):
        await ledger.add("acme", Decimal("0.1"), event_id="credit-1")
        ledger.record(final("gen-1", "0.2"))
        for principal in (ACME, limited("0")):
            with pytest.raises(InsufficientCredits):
                await reserve(ledger, "gen-2", "0", principal)


@pytest.mark.parametrize("reset", [None, "daily", "weekly", "monthly"])
async def test_limits_begin_anew_at_midnight_of_their_day(redis: RedisServer, reset: Any) -> None:
    """By the clock of Redis, in UTC; as the data folder's ledger has it."""
    now = datetime.now(UTC)
    first_day = period_start(reset, now.timestamp())
    used = 0
    async with ledgers(redis) as (ledger,):
        for days_ago in range(6):
            day = (now - timedelta(days=days_ago)).date().isoformat()
            used += day >= first_day
            name = f"gen-{days_ago}"
            owner = {"api_key_id": "key_l", "account_id": None}
            ledger.record(final(name, "1", days_ago=days_ago, **owner))
        with pytest.raises(InsufficientCredits, match=f"{reset or 'key.s'} limit of 10 USD"):
            await reserve(ledger, "gen-x", f"{10 - used}.000001", limited("10", reset))
        assert await reserve(ledger, "gen-y", f"{10 - used}", limited("10", reset))


DAY = datetime(1970, 1, 1, tzinfo=UTC)


async def test_the_first_of_every_month_is_found(redis: RedisServer) -> None:
    """The script's calendar is Python's, leap years and turns of centuries included."""
    script = (Path("plugins/provider_redis/scripts") / "reserve.lua").read_text()
    function = script[
        script.index("local function day_of_month") : script.index("local function spent")
    ]
    days = [*range(0, 60000, 13), *range(20400, 22200)]
    loop = "for i = 1, #ARGV do all[i] = day_of_month(ARGV[i]) end"
    code = f"{function} local all = {{}} {loop} return all"
    connection = redis.connect("calendar")
    found = [
        day
        for start in range(0, len(days), 1000)
        for day in await connection.command("EVAL", code, 0, *days[start : start + 1000])
    ]
    await connection.close()
    assert found == [(DAY + timedelta(days=day)).day - 1 for day in days]


async def test_four_fifths_are_said_once(redis: RedisServer) -> None:
    """To the operator, before anybody is refused."""
    async with ledgers(redis) as (ledger,):
        await ledger.add("acme", Decimal(1), event_id="credit-1")
        ledger.record(final("gen-1", "0.8"))
        with capture_logs() as logs:
            for index in range(3):
                await reserve(ledger, f"gen-{index}", "0.01")
    assert [(line["event"], line["owner"]) for line in logs] == [("credits.low", "acme")]


async def test_reservations_of_a_replica_that_is_gone_lapse(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its request would have been over, and a while later."""
    monkeypatch.setattr("provider_redis.credit_ledger.RESERVED_FOR_S", 0.05)
    async with ledgers(redis, 2) as (dying, living):
        await living.add("acme", Decimal(1), event_id="credit-1")
        await dying.reserve("gen-1", ACME, Decimal(1), deadline_s=0.05)
        with pytest.raises(InsufficientCredits):
            await reserve(living, "gen-2", "1")
        while await balance(living) != ("1", "0", "0"):  # noqa: ASYNC110 - the clock is that of Redis
            await asyncio.sleep(0.01)
        assert await reserve(living, "gen-2", "1")


async def test_a_cancelled_request_leaves_no_reservation(redis: RedisServer) -> None:
    """Wherever it was cancelled."""
    async with ledgers(redis) as (ledger,):
        await ledger.add("acme", Decimal(1), event_id="credit-1")
        for turns in range(10):
            waiting = asyncio.ensure_future(reserve(ledger, f"gen-{turns}", "0.01"))
            for _ in range(turns):
                await asyncio.sleep(0)
            assert waiting.cancel()
            await asyncio.wait([waiting])
        while ledger._reserved or ledger._charges._flushing:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        assert await balance(ledger) == ("1", "0", "0")


AMOUNTS = st.decimals(-(10**6), 10**6, allow_nan=False, places=18)


@given(AMOUNTS)
def test_amounts_are_kept_exactly(usd: Decimal) -> None:
    """To the last of eighteen decimals."""
    assert to_usd(to_text(usd)) == usd


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(AMOUNTS, min_size=1, max_size=10))
async def test_sums_are_exact(redis: RedisServer, amounts: list[Decimal]) -> None:
    """Of credits and charges of any sign, where a double would round."""
    async with ledgers(redis) as (ledger,):
        for index, usd in enumerate(amounts):
            await ledger.add("acme", usd, event_id=f"credit-{index}")
            ledger.record(final(f"gen-{index}", f"{usd:f}"))
        found = await ledger.balance("acme")
    assert found is not None
    assert found.bought == found.used == sum(amounts)


async def test_b22_a_charge_waits_for_redis_and_is_applied_once() -> None:
    """Nothing that must be paid for is admitted meanwhile, and the charge comes first then."""
    with redis_server() as server:
        async with ledgers(server, timeout_s=0.5) as (ledger,):
            await ledger.add("acme", Decimal(1), event_id="credit-1")
            await reserve(ledger, "gen-1", "0.5")
            with server.hanging():
                ledger.record(final("gen-1", "0.4"))  # may arrive when Redis goes on
                with pytest.raises(Unavailable, match="credits cannot be used now") as closed:
                    await reserve(ledger, "gen-2", "0.1")
            server.kill()
            assert closed.value.code == "credits_unavailable"
            with pytest.raises(Unavailable):
                await reserve(ledger, "gen-3", "0.1")
            server.start()
            assert await reserve(ledger, "gen-4", "0.1")
            assert await balance(ledger) == ("1", "0.4", "0.1")
            ledger.record(final("gen-1", "0.4"))
            assert await balance(ledger) == ("1", "0.4", "0.1")


async def test_b22_neither_a_locked_file_nor_a_dead_redis_loses_a_charge(tmp_path: Path) -> None:
    """Both ledgers are closed at once; healed, each has charged once."""
    database = AccessDatabase(tmp_path / "access.sqlite", busy_s=0)
    with redis_server() as server:
        async with ledgers(server, timeout_s=0.5) as (shared,):
            local = CreditStore(database)
            both: tuple[CreditLedger, ...] = (shared, local)
            for ledger in both:
                await ledger.add("acme", Decimal(1), event_id="credit-1")
                await ledger.reserve("gen-1", ACME, Decimal("0.5"), deadline_s=60)
            server.kill()
            locker = sqlite3.connect(database.path, isolation_level=None)
            locker.execute("BEGIN IMMEDIATE")
            for ledger in both:
                ledger.record(final("gen-1", "0.4"))
                with pytest.raises(Unavailable):
                    await ledger.reserve("gen-2", ACME, Decimal("0.1"), deadline_s=60)
            locker.close()
            server.start()
            for ledger in both:
                assert await ledger.reserve("gen-2", ACME, Decimal("0.6"), deadline_s=60)
                found = await ledger.balance("acme")
                assert found is not None
                assert (found.used, found.reserved) == (Decimal("0.4"), Decimal("0.6"))
            await local.close()


async def test_a_start_charges_what_journals_have_beyond_redis(redis: RedisServer) -> None:
    """What is there already is charged once; files that were read are not read again."""
    asked: list[Mapping[str, int]] = []

    def unread(known: Mapping[str, int]) -> Iterator[tuple[list[Any], dict[str, int]]]:
        asked.append(dict(known))
        yield [final("gen-1", "0.1"), final("gen-2", "0.2"), final("gen-3", "9", days_ago=8)], {}
        yield [], {"a.jnl": 7}

    async with ledgers(redis, 3) as (one, *again):
        await one.add("acme", Decimal(1), event_id="credit-1")
        one.record(final("gen-1", "0.1"))
        for ledger in again:
            ledger.start(unread)
            assert ledger._charges._catching_up is not None
            await ledger._charges._catching_up
            assert await balance(ledger) == ("1", "0.3", "0")
    assert asked == [{}, {"a.jnl": 7}]


async def test_a_redis_that_may_lose_money_is_named(redis: RedisServer) -> None:
    """One that forgets what is seldom used."""
    async with ledgers(redis) as (ledger,):
        for policy, expected in (("noeviction", []), ("allkeys-lru", ["credits.may_be_lost"])):
            await ledger._connection.command("CONFIG", "SET", "maxmemory-policy", policy)
            with capture_logs() as logs:
                await ledger._check_keeping()
            assert [line["event"] for line in logs] == expected
        await ledger._connection.command("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_doctor_says_how_redis_is(redis: RedisServer) -> None:
    """Well, forgetful, or gone; never with its password."""
    settings = RedisSettings(url=redis.url)
    assert (await look(settings)).status == "ok"
    connection = redis.connect("doctor")
    await connection.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    forgetful = await look(settings)
    without_credits = await look(RedisSettings(url=redis.url, credits=False))
    await connection.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await connection.close()
    assert (forgetful.status, without_credits.status) == ("failed", "ok")
    assert "may lose credits: maxmemory-policy allkeys-lru" in forgetful.detail
    gone = await look(RedisSettings(url="redis://:a-secret@127.0.0.1:1/0"))
    assert gone.status == "failed"
    assert "a-secret" not in repr(gone)


def test_the_command_line_credits_accounts_there(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says so when it cannot be reached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROVIDER_REDIS_URL", redis.url)
    monkeypatch.setenv("PROVIDER_PLUGINS", "redis")
    run = partial(CliRunner().invoke, make_cli())
    for _ in range(2):
        added = run(["credits", "add", "acme", "2.5", "--id", "payment-1", "--json"])
        assert json.loads(added.stdout)["available"] == "2.5", added.output
    listed = json.loads(run(["credits", "list", "acme", "--json"]).stdout)
    assert [(movement["kind"], movement["usd"]) for movement in listed] == [("credit", "2.5")]
    assert not (tmp_path / ".provider").exists()
    monkeypatch.setenv("PROVIDER_REDIS_URL", "redis://:a-secret@127.0.0.1:1/0")
    failed = run(["credits", "show", "acme"])
    assert failed.exit_code != 0
    assert "a-secret" not in failed.output


async def test_the_past_of_a_key_does_not_grow_for_ever(redis: RedisServer) -> None:
    """Sums of days that no limit looks at go, the sum of all stays."""
    async with ledgers(redis) as (ledger,):
        connection = ledger._connection
        spending = connection.key("key-spending", "key_a")
        today = int(datetime.now(UTC).timestamp() // 86400)
        past = [word for day in range(today - 200, today) for word in (day, "1 0 0")]
        await connection.command("HSET", spending, "all", "200 0 0", *past)
        ledger.record(final("gen-1", "1"))
        await ledger.balance("acme")
        found = await connection.command("HGETALL", spending)
    assert found.pop("all") == "201 0 0"
    assert min(map(int, found)) == today - 40

"""Two servers that share a real Redis, as clients see them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import provider_redis
from tests.integration.keys.test_limits import CHAT, limits_of
from tests.pause import Pause
from tests.redis_server import RedisServer, needs_redis, redis_server
from tests.serving import Serving, saying, serving

pytestmark = needs_redis

CHAT_PATH = "/v1/chat/completions"
NUMBERS = count()
PAYING = {"headers": {"Authorization": "Bearer the-key-of-acme"}}
KEYS_FILE = """
[[key]]
id = "acme"
secrets = ["env://ACME_KEY"]
account_id = "acme"
requests_per_day = 10000
"""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests here; each has its own keys."""
    with redis_server() as server:
        yield server


@pytest.fixture
def keys_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The key of an account, the same for each server."""
    monkeypatch.setenv("ACME_KEY", "the-key-of-acme")
    path = tmp_path / "keys.toml"
    path.write_text(KEYS_FILE)
    return path


@asynccontextmanager
async def two_servers(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any
) -> AsyncIterator[tuple[Serving, Serving]]:
    """Each with a data folder of its own."""
    monkeypatch.setenv("PROVIDER_REDIS_URL", redis.url)
    monkeypatch.setenv("PROVIDER_REDIS_PREFIX", f"test-{next(NUMBERS)}")
    monkeypatch.setenv("PROVIDER_REDIS_TIMEOUT_S", "5")
    options = {"plugins": (provider_redis,), **options}
    async with serving(*args, **options) as one, serving(*args, **options) as other:
        yield one, other


async def status_of(server: Serving, **options: Any) -> int:
    """Of a short chat."""
    return (await server.post(CHAT_PATH, CHAT, **options)).status


async def test_a_race_over_two_servers_never_passes_a_limit(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty-four at once, for three."""
    async with two_servers(redis, monkeypatch, limits={"requests_per_day": 3}) as servers:
        statuses = await asyncio.gather(*(status_of(servers[i % 2]) for i in range(64)))
    assert sorted(statuses) == [200] * 3 + [429] * 61


async def test_headers_count_what_both_let_in(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a single server's do."""
    limits = {"requests_per_day": 60, "tokens_per_minute": 600}
    async with two_servers(redis, monkeypatch, limits=limits) as servers:
        said = [limits_of((await servers[i % 2].chat(max_tokens=1)).headers) for i in range(4)]
        assert [server.server.dispatcher.quotas.is_sharing for server in servers] == [True, True]
        async with servers[0].session.get(f"{servers[0].url}/metrics") as response:
            assert "provider_limits_shared 1.0" in await response.text()
    requests = [headers["x-ratelimit-remaining-requests"] for headers in said]
    tokens = [int(headers["x-ratelimit-remaining-tokens"]) for headers in said]
    assert requests == ["59", "58", "57", "56"]
    assert tokens == sorted(tokens, reverse=True)
    assert tokens[-1] < 590
    assert said[-1]["x-ratelimit-reset-requests"].startswith(("1h35m", "1h36m"))


async def test_places_are_shared_and_given_back(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When an answer has ended, wherever it was given."""
    pause = Pause(1)
    runner = saying("Hello!", on_execute=pause)
    async with two_servers(
        redis, monkeypatch, runner, limits={"concurrent_requests": 1}
    ) as servers:
        running = asyncio.ensure_future(status_of(servers[0]))
        await servers[0].wait_until(lambda: bool(servers[0].server.dispatcher.runs))
        assert await status_of(servers[1]) == 429
        pause.may_go_on.set()
        assert await running == 200
        await servers[0].settled()
        while await status_of(servers[1]) != 200:
            pass


async def test_b21_of_64_clients_with_the_credit_of_one_request_one_is_answered(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, keys_file: Path
) -> None:
    """Over two servers; and it is charged, once."""
    pause = Pause(1)
    runner = saying("Hello!", on_execute=pause)
    access = {"keys_file": keys_file}
    async with two_servers(redis, monkeypatch, runner, access=access) as servers:
        ledger = servers[0].server.credits
        await ledger.add("acme", Decimal("0.00006"), event_id="credit-1")
        asking = [asyncio.ensure_future(status_of(servers[i % 2], **PAYING)) for i in range(64)]
        await servers[0].wait_until(lambda: sum(one.done() for one in asking) == 63)
        pause.may_go_on.set()
        assert sorted([await one for one in asking]) == [200] + [429] * 63
        events = [event for server in servers for event in server.usage.events]
        found = await servers[1].server.credits.balance("acme")
        while found is not None and found.reserved:
            found = await servers[1].server.credits.balance("acme")
    assert found is not None
    assert [found.used] == [Decimal(event["cost"]) for event in events]


async def test_without_redis_rates_are_open_and_credits_closed(
    monkeypatch: pytest.MonkeyPatch, keys_file: Path
) -> None:
    """Killed in the middle of answers: they are charged once when it is back."""
    pause = Pause(1)
    limits = {"requests_per_day": 5}
    with redis_server() as redis:
        async with two_servers(
            redis,
            monkeypatch,
            saying("Hello!", on_execute=pause),
            access={"keys_file": keys_file},
            limits=limits,
        ) as (one, other):
            await one.server.credits.add("acme", Decimal(1), event_id="credit-1")
            running = asyncio.ensure_future(status_of(one, **PAYING))
            await one.wait_until(lambda: bool(one.server.dispatcher.runs))
            redis.kill()
            pause.may_go_on.set()
            assert await running == 200

            answers = [await other.post(CHAT_PATH, CHAT) for _ in range(6)]
            assert [answer.status for answer in answers] == [200] * 5 + [429]
            assert answers[0].headers["x-ratelimit-remaining-requests"] == "4"
            refused = await one.post(CHAT_PATH, CHAT, **PAYING)
            assert refused.status == 503
            assert (await refused.json())["error"]["code"] == "credits_unavailable"
            assert refused.headers["Retry-After"] == "5"

            redis.start()
            quotas = one.server.dispatcher.quotas
            while not quotas.is_sharing:
                assert await status_of(one, **PAYING) in {200, 503}
            assert await status_of(one, **PAYING) == 200
            events = [event for event in one.usage.events if event["account_id"] == "acme"]
            found = await other.server.credits.balance("acme")
            while found is not None and found.reserved:
                found = await other.server.credits.balance("acme")
    assert found is not None
    assert found.used == sum(Decimal(event["cost"]) for event in events)

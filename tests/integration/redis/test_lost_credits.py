"""A Redis that has lost its credits: closed, until they are back or the operator says otherwise."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from provider_core import Unavailable
from provider_redis.birth import birth_file
from provider_redis.credit_ledger import RedisCreditLedger
from provider_redis.settings import RedisSettings
from tests.integration.redis.test_credit_ledger import ACME, ledgers, limited, reserve
from tests.redis_server import RedisServer, needs_redis, redis_server

pytestmark = needs_redis


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests here."""
    with redis_server() as server:
        yield server


@asynccontextmanager
async def started(redis: RedisServer, prefix: str, path: Path) -> AsyncIterator[RedisCreditLedger]:
    """The ledger of a server with a data folder."""
    connection = redis.connect(prefix)
    ledger = RedisCreditLedger(connection, event_retention_days=7, remembered_in=path)
    yield ledger
    await ledger.close()


async def is_closed(ledger: RedisCreditLedger) -> bool:
    """Whether neither an account nor a key with a limit is let in."""
    answers = []
    for principal in (ACME, limited("5")):
        try:
            await reserve(ledger, "gen-x", "0.1", principal)
        except Unavailable as error:
            answers.append(error.code == "credits_unavailable")
        else:
            ledger.release("gen-x")
            answers.append(False)
    assert len(set(answers)) == 1
    assert ledger._reserved == {}
    return answers[0]


async def test_who_paid_in_advance_does_not_pay_later_when_redis_forgets(
    redis: RedisServer, tmp_path: Path
) -> None:
    """Neither at a server that runs nor at one that starts anew; one command opens them all."""
    path = tmp_path / "data" / "ledger"
    async with started(redis, "lost", path) as running:
        await running.add("acme", Decimal(1), event_id="credit-1")
        assert not await is_closed(running)
        await running._connection.command("FLUSHALL")
        assert await is_closed(running)
        async with started(redis, "lost", path) as restarted:
            assert await is_closed(restarted)
            await restarted.add("acme", Decimal(1), event_id="credit-1")
            with capture_logs() as logs:
                assert await is_closed(restarted)
            said = re.search(r"HSET (\S+) (\S+) (\S+)", logs[0]["error"])
            assert said is not None
            await restarted._connection.command("HSET", *said.groups())
            assert not await is_closed(restarted)
        assert not await is_closed(running)


async def test_a_server_that_never_saw_the_ledger_cannot_replace_it(
    redis: RedisServer, tmp_path: Path
) -> None:
    """It takes an empty Redis for a new one; the others do not follow it."""
    async with (
        started(redis, "replaced", tmp_path / "old") as old,
        started(redis, "replaced", tmp_path / "new") as new,
    ):
        assert not await is_closed(old)
        await old._connection.command("FLUSHALL")
        assert not await is_closed(new)
        assert await is_closed(old)


async def test_an_account_that_was_evicted_does_not_pay_later(redis: RedisServer) -> None:
    """Its ledger knows that it has paid; an account of a first version is noted when it is seen."""
    async with ledgers(redis, 2) as (ledger, other):
        await ledger.add("acme", Decimal(1), event_id="credit-1")
        connection = ledger._connection
        account = connection.key("account", "acme")
        await connection.command("HDEL", connection.key("ledger"), account)
        assert await reserve(other, "gen-1", "0.1")
        await connection.command("DEL", account)
        for one in (ledger, other):
            with pytest.raises(Unavailable):
                await reserve(one, "gen-2", "0.1")
        assert await reserve(ledger, "gen-3", "0.1", limited("1"))


async def test_a_folder_that_cannot_be_written_stops_nobody(
    redis: RedisServer, tmp_path: Path
) -> None:
    """The ledger is remembered while the server runs."""
    (tmp_path / "file").touch()
    async with started(redis, "read-only", tmp_path / "file" / "ledger") as ledger:
        assert not await is_closed(ledger)
        await ledger._connection.command("FLUSHALL")
        assert await is_closed(ledger)


def test_another_redis_is_another_ledger(tmp_path: Path) -> None:
    """A new password does not make one."""
    urls = ("redis://:one@a:1/0", "redis://:two@a:1/0", "redis://a:2/0", "redis://b:1/0")
    files = [birth_file(tmp_path, RedisSettings(url=url)) for url in (*urls, "redis://a:1/1")]
    assert files[0] == files[1]
    assert len(set(files)) == 4
    assert birth_file(tmp_path, RedisSettings(url=urls[0], prefix="other")) not in files

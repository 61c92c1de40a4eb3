"""Rates in a real Redis: like those in memory, and shared."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provider_core.access.limit_store import MemoryLimitStore
from provider_core.quotas import ConcurrencyLimit, RateBucket
from provider_redis.connection import RedisFailedError
from provider_redis.limit_store import RedisLimitStore
from tests.redis_server import RedisServer, needs_redis, redis_server

pytestmark = needs_redis

DAY_S = 86400.0
NUMBERS = count()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests here; each has its own keys."""
    with redis_server() as server:
        yield server


@asynccontextmanager
async def stores(
    redis: RedisServer, num: int = 1, lease_s: float = 30
) -> AsyncIterator[list[RedisLimitStore]]:
    """Those of several replicas."""
    prefix = f"test-{next(NUMBERS)}"
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(num):
            store = RedisLimitStore(redis.connect(prefix), lease_s=lease_s)
            stack.push_async_callback(store.close)
            made.append(store)
        yield made


def bucket(capacity: int, period_s: float = DAY_S) -> RateBucket:
    """One that hardly fills while a test runs."""
    return RateBucket(f"key:requests:{capacity}", capacity, period_s)


async def test_a_race_of_two_replicas_lets_exactly_the_limit_in(redis: RedisServer) -> None:
    """However they interleave."""
    shape = bucket(10)
    async with stores(redis, 2) as replicas:
        answers = await asyncio.gather(
            *(replicas[i % 2].take(f"req-{i}", [(shape, 1)]) for i in range(64))
        )
    assert sum(answer.is_taken for answer in answers) == 10
    assert min(answer.levels[0] for answer in answers) == pytest.approx(0, abs=0.01)


Operation = tuple[str, int, Sequence[int]]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["take", "give_back"]),
        st.integers(0, 3),
        st.lists(st.integers(-3, 30), min_size=2, max_size=2),
    ),
    max_size=30,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(operations=OPERATIONS)
async def test_answers_are_those_of_the_memory(
    redis: RedisServer, operations: list[Operation]
) -> None:
    """Level by level, whatever is taken and given back in any order."""
    shapes = [bucket(7), bucket(20)]
    running = [ConcurrencyLimit("key", 2)]
    memory = MemoryLimitStore()
    async with stores(redis) as (store,):
        for operation, request, numbers in operations:
            name, amounts = f"req-{request}", list(zip(shapes, numbers, strict=True))
            if operation == "give_back":
                memory.give_back(name, amounts, running)
                store.give_back(name, amounts, running)
                await asyncio.gather(*store._tasks)
                continue
            expected = await memory.take(name, amounts, running)
            answer = await store.take(name, amounts, running)
            assert (answer.is_taken, answer.num_running) == (
                expected.is_taken,
                expected.num_running,
            )
            assert answer.levels == pytest.approx(expected.levels, abs=0.05)


async def test_a_bucket_fills_by_the_clock_of_redis(redis: RedisServer) -> None:
    """At its rate, and no further than it holds."""
    shape = bucket(1000, period_s=1.0)
    async with stores(redis) as (store,):
        await store.take("req-1", [(shape, 1000)])
        levels = [0.0]
        while levels[-1] < 1000:
            levels.append((await store.take("req-2", [(shape, 0)])).levels[0])
    assert levels == sorted(levels)
    assert len(levels) > 2
    assert levels[-1] == 1000


async def test_what_is_not_used_is_forgotten(redis: RedisServer) -> None:
    """A bucket when it is full again, a concurrency limit with its leases."""
    async with stores(redis, lease_s=30) as (store,):
        await store.take("req-1", [(bucket(100), 50)], [ConcurrencyLimit("key", 1)])
        connection = store._connection
        of_bucket = await connection.command("TTL", connection.key("rate", bucket(100).name))
        of_limit = await connection.command("TTL", connection.key("running", "key"))
    assert of_bucket == pytest.approx(DAY_S / 2, abs=3)
    assert of_limit == pytest.approx(30, abs=2)


async def test_requests_of_a_replica_that_died_lapse(redis: RedisServer) -> None:
    """Those of one that lives do not, however long they run."""
    limit = [ConcurrencyLimit("key", 1)]
    async with stores(redis, 2, lease_s=0.3) as (dying, living):
        assert (await dying.take("req-1", [], limit)).is_taken
        assert dying._renewing is not None
        dying._renewing.cancel()
        while not (await living.take("req-2", [], limit)).is_taken:  # noqa: ASYNC110 - see the name
            await asyncio.sleep(0.01)

        async def lapses_us() -> float:
            connection = living._connection
            return float(
                await connection.command("ZSCORE", connection.key("running", "key"), "req-2")
            )

        first = await lapses_us()
        while await lapses_us() < first + 0.3e6:  # noqa: ASYNC110 - it would have lapsed by then
            await asyncio.sleep(0.01)


async def test_a_request_is_counted_once_and_given_back_once(redis: RedisServer) -> None:
    """However often it says so."""
    limit = [ConcurrencyLimit("key", 1)]
    async with stores(redis, 2) as (one, other):
        for _ in range(3):
            assert (await one.take("req-1", [], limit)).is_taken
        assert not (await other.take("req-2", [], limit)).is_taken
        for _ in range(3):
            one.give_back("req-1", [], limit)
        await asyncio.gather(*one._tasks)
        assert (await other.take("req-2", [], limit)).is_taken
        assert not one._leases


async def test_a_renewal_revives_no_request_that_has_ended(redis: RedisServer) -> None:
    """It noted what runs before the request ended, and comes after."""
    limit = [ConcurrencyLimit("key", 1)]
    async with stores(redis) as (store,):
        await store.take("req-1", [], limit)
        leases = list(store._leases)
        store.give_back("req-1", [], limit)
        await asyncio.gather(*store._tasks)
        store._leases.update(leases)
        await store._renew_once()
        assert (await store.take("req-2", [], limit)).is_taken


async def test_a_request_that_is_cancelled_meanwhile_has_taken_nothing(redis: RedisServer) -> None:
    """Redis counts it all the same, as it was asked before."""
    shape, limit = bucket(100), [ConcurrencyLimit("key", 1)]
    async with stores(redis) as (store,):
        await store.take("req-1", [(shape, 10)])
        client = store._connection._client
        assert client is not None
        with redis.hanging():
            taking = asyncio.create_task(store.take("req-2", [(shape, 60)], limit))
            while not client._asked:  # noqa: ASYNC110 - nothing tells when it is asked
                await asyncio.sleep(0)
            taking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await taking
            store.give_back("req-2", [], limit)  # as its end does
        await asyncio.gather(*store._tasks)
        after = await store.take("req-3", [(shape, 10)], limit)
        assert (after.is_taken, after.num_running) == (True, (0,))
        assert after.levels[0] == pytest.approx(80, abs=0.1)


async def test_a_redis_that_hangs_is_not_waited_for() -> None:
    """Nor one that is gone; and it is found again when it comes back."""
    shape = bucket(10)
    with redis_server() as server:
        store = RedisLimitStore(server.connect("hang", timeout_s=0.5), lease_s=30)
        await store.take("req-1", [(shape, 1)])
        with server.hanging(), pytest.raises(RedisFailedError, match=r"no answer within 0\.5 s"):
            await store.take("req-2", [(shape, 1)])
        server.kill()
        with pytest.raises(RedisFailedError):
            await store.take("req-3", [(shape, 1)])
        store.give_back("req-3", [(shape, 1)])  # which must not raise
        await asyncio.gather(*store._tasks)
        server.start()
        level = (await store.take("req-4", [(shape, 1)])).levels[0]
        await store.close()
    assert math.floor(level) in {7, 8}  # the one that hung may have been counted

"""When requests go out: Poisson times, clients that wait, and a loop that does not."""

import asyncio
from collections.abc import Iterator
from itertools import count, islice, repeat

import numpy as np
import pytest
from scipy import stats

from provider_core.loadtest.arrivals import (
    MOST_PREPARED,
    closed_loop,
    open_loop,
    poisson_arrivals,
    prepared,
)
from provider_core.loadtest.exchange import Client
from provider_core.loadtest.replies import DONE, Reply
from provider_core.loadtest.target import make_target
from provider_core.loadtest.workload import Request
from tests.unit.loadtest.scripted_stream import (
    END,
    HEAD,
    ManualClock,
    chunk,
    scripted_stream,
    text,
)

ANSWER = [(101.0, HEAD + chunk(text(), DONE) + END)]
REQUESTS = [Request(prompt=[number], max_tokens=1) for number in range(7)]


def arrivals(rate: float, count: int, seed: tuple[int, ...]) -> list[float]:
    """The first of them."""
    return list(islice(poisson_arrivals(rate, seed), count))


def messages(client: Client) -> list[bytes]:
    """The requests as they are sent."""
    return [client.target.post(request) for request in REQUESTS]


def test_gaps_of_poisson_arrivals_are_exponential() -> None:
    """Of the right mean, and without memory: a gap says nothing about the next."""
    gaps = np.diff(arrivals(5.0, 4000, (1, 2)), prepend=0.0)

    assert stats.kstest(gaps, "expon", args=(0, 1 / 5.0)).pvalue > 0.01
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 4 / np.sqrt(len(gaps))


def test_counts_of_poisson_arrivals_vary_like_their_mean() -> None:
    """In equal spans of time."""
    times = arrivals(10.0, 20_000, (3,))
    counts, _ = np.histogram(times, bins=1000, range=(0, 1000))

    assert counts.mean() == pytest.approx(10.0, rel=0.05)
    assert counts.var() == pytest.approx(10.0, rel=0.2)


def test_a_seed_gives_the_same_times() -> None:
    """For two servers."""
    assert arrivals(1.0, 5, (1, 2)) == arrivals(1.0, 5, (1, 2))
    assert arrivals(1.0, 5, (1, 2)) != arrivals(1.0, 5, (1, 3))


def test_few_messages_are_made_ahead_of_a_long_round() -> None:
    """A hundred million would fill the memory before the first was sent."""
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in count():
            made.append(number)
            yield number

    ready = prepared(make())

    assert len(made) == MOST_PREPARED
    assert list(islice(ready, 2000)) == list(range(2000))


@pytest.mark.parametrize(("concurrency", "most"), [(1, 1), (3, 3), (20, 7)])
async def test_a_closed_loop_keeps_so_many_requests_open(concurrency: int, most: int) -> None:
    """Never more, and all are sent in the end."""
    async with scripted_stream(ANSWER) as (stream, port):
        stream.gate.clear()
        client = Client(make_target(f"http://127.0.0.1:{port}", label="A"), timeout_s=30)
        replies: list[Reply] = []
        load = asyncio.create_task(
            closed_loop(client, messages(client), concurrency=concurrency, replies=replies)
        )
        while stream.num_open < most:  # noqa: ASYNC110 - whatever a test can look at
            await asyncio.sleep(0)
        stream.gate.set()
        await load

    assert stream.most_open == most
    assert [reply.error for reply in replies] == [None] * len(REQUESTS)


async def test_an_open_loop_waits_for_nobody() -> None:
    """All requests are out at their times while the server has answered none."""
    clock = ManualClock(now_s=50.0)
    waits: list[float] = []

    async def sleep(wait_s: float) -> None:
        waits.append(wait_s)
        while stream.num_open < len(waits):  # noqa: ASYNC110 - whatever a test can look at
            await asyncio.sleep(0)
        clock.now_s += wait_s

    async with scripted_stream(ANSWER) as (stream, port):
        stream.gate.clear()
        target = make_target(f"http://127.0.0.1:{port}", label="A")
        client = Client(target, timeout_s=30, clock=clock)
        replies: list[Reply] = []
        load = asyncio.create_task(
            open_loop(
                client,
                zip([0.0, 1.0, 1.5, 4.0], messages(client), strict=False),
                replies=replies,
                clock=clock,
                sleep=sleep,
            )
        )
        while stream.num_open < 4:  # noqa: ASYNC110 - whatever a test can look at
            await asyncio.sleep(0)
        stream.gate.set()
        last_s = await load

    assert last_s == 4.0
    assert waits == [1.0, 0.5, 2.5]
    assert sorted(reply.sent_s for reply in replies) == [50.0, 51.0, 51.5, 54.0]
    assert [reply.lag_s for reply in replies] == [0.0] * 4


async def test_a_loop_that_is_late_lets_its_requests_go() -> None:
    """A schedule without end, and no time at all between two."""
    async with scripted_stream(ANSWER) as (_, port):
        client = Client(make_target(f"http://127.0.0.1:{port}", label="A"), timeout_s=30)
        replies: list[Reply] = []
        schedule = repeat((0.0, messages(client)[0]))
        load = asyncio.create_task(open_loop(client, schedule, replies=replies, clock=lambda: 1.0))
        while not replies:  # noqa: ASYNC110 - whatever a test can look at
            await asyncio.sleep(0)
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load

    assert replies[0].error is None


async def test_a_late_request_says_how_late_it_is() -> None:
    """The generator, too, can be too slow."""
    clock = ManualClock(now_s=50.0)

    async def oversleep(wait_s: float) -> None:
        clock.now_s += wait_s + 0.25

    async with scripted_stream(ANSWER) as (_, port):
        target = make_target(f"http://127.0.0.1:{port}", label="A")
        client = Client(target, timeout_s=30, clock=clock)
        replies: list[Reply] = []
        schedule = [(1.0, messages(client)[0])]
        await open_loop(client, schedule, replies=replies, clock=clock, sleep=oversleep)

    assert [reply.lag_s for reply in replies] == [0.25]

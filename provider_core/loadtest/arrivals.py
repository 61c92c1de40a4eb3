"""When requests are sent: by clients that wait for their answers, or at times of their own.

A closed loop finds the most a server can do at a number of clients; its clients slow down with the
server. An open loop sends whatever happens, as users do, and so shows the queue that builds up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TypeVar

import numpy as np

from provider_core.loadtest.exchange import Client
from provider_core.loadtest.replies import Clock, Reply

MOST_PREPARED = 1024

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


def poisson_arrivals(rate: float, seed: Sequence[int]) -> Iterator[float]:
    """Times of a Poisson process: independent, exponential gaps.

    Args:
        rate: Mean arrivals per second.
        seed: Gives the same times again.

    Yields:
        Seconds after the start, ascending, without end.
    """
    random = np.random.default_rng(seed)
    time_s = 0.0
    while True:
        time_s += random.exponential(1 / rate)
        yield time_s


def prepared(messages: Iterable[T]) -> Iterator[T]:
    """Make the first messages at once, so that an ordinary round makes none while it is timed.

    A longer round makes the rest as it goes, because memory has an end.
    """
    rest = iter(messages)
    return chain(list(islice(rest, MOST_PREPARED)), rest)


async def closed_loop(
    client: Client, messages: Iterable[bytes], *, concurrency: int, replies: list[Reply]
) -> None:
    """Let so many clients send one request after the other.

    Args:
        client: The server.
        messages: What `Target.post` gave of each request; the clients take turns.
        concurrency: Clients.
        replies: Filled with the answers in the order of their ends.
    """
    turns = iter(messages)

    async def work() -> None:
        for message in turns:
            reply = await client.stream(message)
            replies.append(reply)

    async with asyncio.TaskGroup() as clients:
        for _ in range(concurrency):
            clients.create_task(work())


async def open_loop(
    client: Client,
    schedule: Iterable[tuple[float, bytes]],
    *,
    replies: list[Reply],
    clock: Clock,
    sleep: Sleep = asyncio.sleep,
) -> float:
    """Send each request at its time, however many are still unanswered.

    Args:
        client: The server.
        schedule: Seconds after the start, ascending, each with what `Target.post` gave.
        replies: Filled with the answers in the order of their ends.
        clock: The client's.
        sleep: Waits.

    Returns:
        The last time; 0 if there is none.
    """
    start_s = clock()
    time_s = 0.0

    async def send(message: bytes, due_s: float) -> None:
        replies.append(await client.stream(message, due_s=due_s))

    async with asyncio.TaskGroup() as sending:
        for time_s, message in schedule:
            due_s = start_s + time_s
            if (wait_s := due_s - clock()) > 0:
                await sleep(wait_s)
            else:  # late already: let those that wait be sent, and an interrupt be seen
                await asyncio.sleep(0)
            sending.create_task(send(message, due_s))
    return time_s

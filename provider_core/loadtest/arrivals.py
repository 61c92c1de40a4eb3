"""When requests are sent: by clients that wait for their answers, or at times of their own.

A closed loop finds the most a server can do at a number of clients; its clients slow down with the
server. An open loop sends whatever happens, as users do, and so shows the queue that builds up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from provider_core.loadtest.exchange import Client
from provider_core.loadtest.replies import Clock, Reply
from provider_core.loadtest.workload import Request

Sleep = Callable[[float], Awaitable[None]]


def poisson_arrivals(rate: float, count: int, seed: Sequence[int]) -> list[float]:
    """Times of a Poisson process: independent, exponential gaps.

    Args:
        rate: Mean arrivals per second.
        count: How many.
        seed: Gives the same times again.

    Returns:
        Seconds after the start, ascending.
    """
    times: list[float] = np.cumsum(
        np.random.default_rng(seed).exponential(1 / rate, count)
    ).tolist()
    return times


async def closed_loop(
    client: Client,
    requests: Sequence[Request],
    *,
    concurrency: int,
    replies: list[Reply],
) -> None:
    """Let so many clients send one request after the other.

    Args:
        client: The server.
        requests: All of them; the clients take turns.
        concurrency: Clients.
        replies: Filled with the answers in the order of their ends.
    """
    messages = iter([client.target.post(request) for request in requests])

    async def work() -> None:
        for message in messages:
            reply = await client.stream(message)
            replies.append(reply)

    async with asyncio.TaskGroup() as clients:
        for _ in range(min(concurrency, len(requests))):
            clients.create_task(work())


async def open_loop(
    client: Client,
    requests: Sequence[Request],
    times_s: Sequence[float],
    *,
    replies: list[Reply],
    clock: Clock,
    sleep: Sleep = asyncio.sleep,
) -> None:
    """Send each request at its time, however many are still unanswered.

    Args:
        client: The server.
        requests: In the order of their times.
        times_s: Seconds after the start, ascending.
        replies: Filled with the answers in the order of their ends.
        clock: The client's.
        sleep: Waits.
    """
    messages = [client.target.post(request) for request in requests]
    start_s = clock()

    async def send(message: bytes, due_s: float) -> None:
        replies.append(await client.stream(message, due_s=due_s))

    async with asyncio.TaskGroup() as sending:
        for message, time_s in zip(messages, times_s, strict=True):
            due_s = start_s + time_s
            if (wait_s := due_s - clock()) > 0:
                await sleep(wait_s)
            sending.create_task(send(message, due_s))

"""Replicas replaced under load: nothing is lost that fits the grace, and every cut is settled."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.platform.contracts import CONTRACTS
from tests.platform.replicas import ProcessReplica, as_process
from tests.platform.simulator import Stream, talk
from tests.platform.talking_engine import TOKEN_S

CONTRACT = CONTRACTS["kubernetes"]
_POLL_S = 0.2  # between the balancer's health checks: it learns late
_DELAY_S = 5 * _POLL_S
_NUM_CLIENTS = 8
_KEPT_S = 3.0  # of the grace, for what comes after the last stream

pytestmark = pytest.mark.timeout(120)


@dataclass
class Balancer:
    """Sends each request to a replica that was ready when it last looked, in turns."""

    session: aiohttp.ClientSession
    replicas: list[ProcessReplica] = field(default_factory=list)
    ready: list[ProcessReplica] = field(default_factory=list)
    turn: int = 0

    async def watch(self) -> None:
        """Look at everybody's health, now and then."""
        while True:
            self.ready = [each for each in self.replicas if await self._is_ready(each)]
            await asyncio.sleep(_POLL_S)

    async def _is_ready(self, replica: ProcessReplica) -> bool:
        with suppress(aiohttp.ClientError):
            async with self.session.get(f"http://127.0.0.1:{replica.port}/readyz") as reply:
                return reply.status == 200
        return False

    async def until_ready(self, replica: ProcessReplica) -> None:
        """Wait until requests are sent there."""
        async with asyncio.timeout(20):
            while replica not in self.ready:  # noqa: ASYNC110 - `watch` looks no oftener
                await asyncio.sleep(_POLL_S)

    def url(self) -> str:
        """Where the next request goes."""
        self.turn += 1
        return f"http://127.0.0.1:{self.ready[self.turn % len(self.ready)].port}"


Start = Callable[[], Awaitable[ProcessReplica]]


@asynccontextmanager
async def cluster(folder: Path, **variables: str) -> AsyncIterator[tuple[Balancer, Start]]:
    """A balancer, and how to start a replica with these variables behind it."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        balancer = Balancer(session)

        async def start() -> ProcessReplica:
            place = folder / f"replica-{len(balancer.replicas)}"
            place.mkdir()
            replica = await stack.enter_async_context(
                as_process("kubernetes", CONTRACT, place, **variables)
            )
            replica.finish_loading()
            balancer.replicas.append(replica)
            return replica

        watching = asyncio.create_task(balancer.watch())
        try:
            yield balancer, start
        finally:
            watching.cancel()


@asynccontextmanager
async def load(balancer: Balancer, lengths: Iterable[int]) -> AsyncIterator[list[Stream]]:
    """Clients that ask one thing after the other, streams of these lengths in turn.

    They end with the context; what they were answered is then whole.
    """
    streams: list[Stream] = []
    is_over = asyncio.Event()
    next_length = cycle(lengths)

    async def ask() -> None:
        while not is_over.is_set():
            streams.append(await talk(balancer.session, balancer.url(), next(next_length)))

    async with asyncio.TaskGroup() as clients:
        for _ in range(_NUM_CLIENTS):
            clients.create_task(ask())
        yield streams
        is_over.set()


async def stop_all(replicas: Iterable[ProcessReplica], grace_s: float) -> None:
    """Stop them, one after the other, each in its grace."""
    for replica in replicas:
        replica.send(CONTRACT.stop_signal)
        assert await replica.ended(grace_s) == 0


def finals_of(replicas: Iterable[ProcessReplica]) -> dict[str, dict[str, Any]]:
    """The bills of replicas that have ended, whose journals and logs agree, by generation."""
    finals: dict[str, dict[str, Any]] = {}
    for replica in replicas:
        assert replica.discrepancies() == []
        lines = [line for line in replica.lines() if line["event"] == "usage.final"]
        finals |= {line["generation_id"]: line for line in lines}
    return finals


async def test_a_rolling_restart_with_a_grace_of_30_s_loses_nothing(tmp_path: Path) -> None:
    """Two replicas are replaced one after the other while clients stream; each answer is whole."""
    grace_s = 30
    variables = {"PROVIDER_SERVER__DRAIN_DELAY_S": f"{_DELAY_S}"}
    async with cluster(tmp_path, **variables) as (balancer, start):
        old = [await start(), await start()]
        for replica in old:
            await balancer.until_ready(replica)
        async with load(balancer, range(5, 75, 13)) as streams:
            for replica in old:
                await balancer.until_ready(await start())
                await stop_all([replica], grace_s)
        await stop_all(balancer.replicas[len(old) :], grace_s)
        finals = finals_of(balancer.replicas)

    assert len(streams) > 4 * _NUM_CLIENTS
    assert [stream for stream in streams if not stream.is_whole] == []
    assert {stream.generation_id for stream in streams} == finals.keys()


async def test_a_grace_of_10_s_cuts_no_stream_that_is_shorter_than_7_s(tmp_path: Path) -> None:
    """What takes longer than that after the signal ends with an error that says why, settled.

    Others go on asking meanwhile, and lose nothing.
    """
    grace_s = 10
    variables = {
        "PROVIDER_SERVER__GRACE_S": f"{grace_s}",
        "PROVIDER_SERVER__DRAIN_DELAY_S": f"{_DELAY_S}",
    }
    async with cluster(tmp_path, **variables) as (balancer, start):
        old, new = await start(), await start()
        for replica in (old, new):
            await balancer.until_ready(replica)

        async def ask(duration_s: float) -> tuple[Stream, float]:
            num_tokens = int(duration_s / TOKEN_S)
            begun = asyncio.Event()
            url = f"http://127.0.0.1:{old.port}"
            asking = asyncio.create_task(talk(balancer.session, url, num_tokens, begun))
            await begun.wait()
            all_begun.release()
            return await asking, time.monotonic()

        all_begun = asyncio.Semaphore(0)
        async with load(balancer, range(5, 40, 7)) as short:
            durations_s = [1.0, 4.0, 5.5, 30.0, 30.0]
            clients = [asyncio.create_task(ask(duration_s)) for duration_s in durations_s]
            for _ in clients:
                await all_begun.acquire()
            stopped_s = time.monotonic()
            await stop_all([old], grace_s)
            ends = await asyncio.gather(*clients)
        await stop_all([new], grace_s)
        finals = finals_of(balancer.replicas)

    for stream, ended_s in ends:
        final = finals[stream.generation_id]
        if stream.is_whole:
            assert final["status"] == "ok"
        else:
            assert stream.error is not None
            assert stream.error["code"] == "draining"
            assert ended_s - stopped_s >= grace_s - _KEPT_S
            assert (final["status"], final["error_code"]) == ("error", "draining")
            assert final["completion_tokens"] == len(stream.text)
    assert [stream.is_whole for stream, _ in ends] == [True, True, True, False, False]
    assert [stream for stream in short if not stream.is_whole] == []
    assert len(finals) == len(short) + len(ends)

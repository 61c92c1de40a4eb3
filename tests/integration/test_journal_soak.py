"""B1 and B23: kills by the thousand, and faults for as long as one likes, one journal and one log.

`make soak` runs the long forms.
"""

import asyncio
import random
import resource
import signal
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from tests.journal_boots import Boots, Reader, kill_at_random, session_of_key

Fault = Literal["kill", "terminate", "freeze", "stalled log", "full disk"]
FAULTS: tuple[Fault, ...] = ("kill", "terminate", "freeze", "stalled log", "full disk")
OFTEN = (1, 1, 3, 3, 3)  # so that processes live for several faults, and what they leak shows
REQUESTS_PER_S = 20
MAX_GROWTH = 16 * 2**20  # bytes of resident memory, from the first third of a life to the last
UNLIMITED = resource.RLIM_INFINITY


class Soak:
    """Serves from one folder under load, with a fault now and then.

    Args:
        boots: The folder.
        every_s: Between two faults.
        seed: Of their order and moments.

    Attributes:
        done: Faults so far.
        statuses: How often each HTTP status came; `None` for a connection that broke.
        growth: Of each process that lived for long: how many bytes its memory grew.
    """

    def __init__(self, boots: Boots, every_s: float, seed: int) -> None:
        self.done: list[Fault] = []
        self.statuses: dict[int | None, int] = {}
        self.growth: list[float] = []
        self._boots = boots
        self._every_s = every_s
        self._rng = random.Random(seed)  # noqa: S311 - faults, repeatable

    async def run(self, faults: Iterator[Fault]) -> None:
        """Go through some faults; then one start settles all."""
        fault = next(faults, None)
        while fault is not None:
            with self._serving() as (process, reader):
                port = await self._boots.port(process)
                assert port is not None
                asking = asyncio.create_task(self._ask(process, port))
                memory: list[int] = []
                while fault is not None and process.poll() is None:
                    await self._pause(process, memory)
                    await self._inflict(fault, process, port, reader)
                    self.done.append(fault)
                    fault = next(faults, None)
                if process.poll() is None:
                    process.terminate()
                    await asyncio.to_thread(process.wait)
                await asking
                if len(memory) > 60:
                    third = len(memory) // 3
                    before, after = memory[third // 2 : third], memory[-third // 2 :]
                    self.growth.append(statistics.median(after) - statistics.median(before))
        await self._boots.settle()

    @contextmanager
    def _serving(self) -> Iterator[tuple[subprocess.Popen[bytes], Reader]]:
        with self._boots.process(stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            reader = Reader(process.stdout, self._boots.log)
            try:
                yield process, reader
            finally:
                process.kill()
                reader.join()
                process.stdout.close()

    @staticmethod
    def _resident_bytes(process: subprocess.Popen[bytes]) -> int:
        pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    async def _pause(self, process: subprocess.Popen[bytes], memory: list[int]) -> None:
        """Until the next fault; note once a second how much memory is resident."""
        left_s = self._every_s * self._rng.uniform(0.5, 1.5)
        while left_s > 0 and process.poll() is None:
            memory.append(self._resident_bytes(process))
            await asyncio.sleep(min(1.0, left_s))
            left_s -= 1.0

    async def _inflict(
        self, fault: Fault, process: subprocess.Popen[bytes], port: int, reader: Reader
    ) -> None:
        lasts_s = min(self._every_s / 4, 5.0)
        match fault:
            case "kill":
                process.kill()
                process.wait()
            case "terminate":
                process.terminate()
                await asyncio.to_thread(process.wait)
            case "freeze":
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(lasts_s)
                process.send_signal(signal.SIGCONT)
            case "stalled log":
                reader.reads.clear()
                await asyncio.sleep(lasts_s)
                reader.reads.set()
            case "full disk":  # no file may grow: EFBIG, of which Python takes no signal
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, UNLIMITED))
                await asyncio.sleep(lasts_s)
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (UNLIMITED, UNLIMITED))
                await self._until_served(port)  # one fault at a time

    async def _until_served(self, port: int) -> None:
        async with session_of_key() as session:
            status = None
            while status != 200:
                status = await self._boots.ask(session, port, stream=False)

    async def _ask(self, process: subprocess.Popen[bytes], port: int) -> None:
        """Ask 20 times a second, whether or not answers come, streamed and whole in turn."""
        asked: set[asyncio.Task[None]] = set()
        async with session_of_key() as session:

            async def ask(*, stream: bool) -> None:
                status = await self._boots.ask(session, port, stream=stream)
                self.statuses[status] = self.statuses.get(status, 0) + 1

            while process.poll() is None:
                task = asyncio.create_task(ask(stream=len(self.statuses) % 2 == 0))
                asked.add(task)
                task.add_done_callback(asked.discard)
                await asyncio.sleep(1 / REQUESTS_PER_S)
            await asyncio.gather(*asked)


def often(rng: random.Random, minutes: float) -> Iterator[Fault]:
    """A fault a minute, at random."""
    for _ in range(round(minutes)):
        (fault,) = rng.choices(FAULTS, OFTEN)
        yield fault


def told(soak: Soak) -> str:
    """What a soak did."""
    counts: Sequence[str] = [f"{fault}: {soak.done.count(fault)}" for fault in FAULTS]
    grown = [f"{growth / 2**20:.1f} MiB" for growth in soak.growth]
    return f"{', '.join(counts)}; statuses {soak.statuses}; memory grew by {grown}"


@pytest.mark.timeout(180)
async def test_b23_each_fault_once_reconciles(tmp_path: Path) -> None:
    """The short form of the soak: whatever happens to a server, journal and log agree."""
    boots = Boots(tmp_path)
    soak = Soak(boots, every_s=0.8, seed=23)
    await soak.run(iter(("freeze", "stalled log", "full disk", "kill", "freeze", "terminate")))
    assert boots.check()
    assert len(soak.done) == 6
    assert set(soak.statuses) <= {200, 503, None}
    assert soak.statuses[200] > 10


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_b23_a_fault_each_minute_for_twenty(tmp_path: Path) -> None:
    """Reconciles at the end, and no process that lived for long grew."""
    boots = Boots(tmp_path)
    soak = Soak(boots, every_s=60.0, seed=24)
    await soak.run(often(random.Random(25), minutes=20))  # noqa: S311 - faults, repeatable
    print(told(soak))  # noqa: T201 - for whoever waited for it
    boots.check()
    assert soak.statuses[200] > 20 * 60 * REQUESTS_PER_S // 2
    assert max(soak.growth, default=0.0) < MAX_GROWTH


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_b1_a_thousand_kills(tmp_path: Path) -> None:
    """Under load, with one journal: every completed answer has exactly one bill, none conflicts."""
    boots = Boots(tmp_path)
    await kill_at_random(boots, 1000, seed=2)
    print(f"{len(boots.completed)} completed answers")  # noqa: T201 - as above
    boots.check()
    assert len(boots.completed) > 1000

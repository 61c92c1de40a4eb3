"""What the journal costs: at the end of a request, and in settled requests per second.

Run `python -m bench.journal [FOLDER]`; the folder's disk is what is measured, by default that of
the working directory. The first table is the wait for one bill, of clients that pause 10 ms between
two; the second drives as many as will go, one event loop settling them all. Both loops say how long
they were ever kept from other work, the last while each sync takes half a second.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

import uvloop

from bench.request_edges import USAGE, begin
from provider_core.billing import ProcessFacts, make_ulid
from provider_core.billing.journal import Disk, UsageJournal
from provider_core.billing.settlement import Ledger
from provider_core.billing_settings import JournalSettings

PAUSE_S = 0.002
STALL_S = 0.5


class Nowhere:
    """A log that takes everything."""

    def emit(self, line: bytes) -> None:
        """Forget it."""

    def write_through(self, line: bytes) -> bool:
        """Forget it."""
        return bool(line)


class TimedDisk(Disk):
    """Remembers how long the disk itself took."""

    def __init__(self) -> None:
        self.syncs_s: list[float] = []

    def sync(self, fd: int) -> None:
        """Sync and note the time."""
        start_s = time.perf_counter()
        super().sync(fd)
        self.syncs_s.append(time.perf_counter() - start_s)


class SlowDisk(Disk):
    """Each sync takes half a second."""

    def sync(self, fd: int) -> None:
        """Wait, then sync."""
        time.sleep(STALL_S)
        super().sync(fd)


class LoopWatch:
    """Measures how late the loop comes to what is due each 2 ms."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            due_s = time.perf_counter() + PAUSE_S
            await asyncio.sleep(PAUSE_S)
            self.longest_s = max(self.longest_s, time.perf_counter() - due_s)

    def stop(self) -> float:
        """Seconds of the longest delay."""
        self._task.cancel()
        return self.longest_s


async def settle_one(ledger: Ledger) -> float:
    """One generation from admission to its end; seconds that its bill kept the end waiting."""
    settlement = begin(ledger)
    settlement.settle(status="ok", usage=USAGE, finish_reason="stop")
    start_s = time.perf_counter()
    await settlement.until_durable()
    waited_s = time.perf_counter() - start_s
    settlement.conclude(is_sent=True)
    return waited_s


async def clients(ledger: Ledger, num_clients: int, each: int, pause_s: float = 0) -> list[float]:
    """Settle from several clients at a time."""

    async def client() -> list[float]:
        waits = []
        for _ in range(each):
            waits.append(await settle_one(ledger))
            await asyncio.sleep(pause_s)
        return waits

    return list(chain(*await asyncio.gather(*(client() for _ in range(num_clients)))))


async def measure(folder: Path) -> None:
    """Measure and print."""
    disk = TimedDisk()
    ledger, journal = start(folder / "fast", disk)
    print("wait for the bill, ms       p50     p99   p50 of the disk's own sync")
    for num_clients in (1, 8, 64):
        disk.syncs_s.clear()
        waits = await clients(ledger, num_clients, 640 // num_clients, pause_s=0.01)
        p99 = statistics.quantiles(waits, n=100)[98]
        name = f"{num_clients} clients"
        sync_ms = statistics.median(disk.syncs_s) * 1e3
        print(f"{name:<22} {statistics.median(waits) * 1e3:8.3f}{p99 * 1e3:8.3f}{sync_ms:8.3f}")
    print("\nsettled requests per second, longest delay of the loop in ms")
    for num_clients in (64, 256):
        watch, start_s = LoopWatch(), time.perf_counter()
        waits = await clients(ledger, num_clients, 20_000 // num_clients)
        rate = len(waits) / (time.perf_counter() - start_s)
        print(f"{num_clients} clients, no pause  {rate:10.0f} {watch.stop() * 1e3:8.1f}")
    await asyncio.to_thread(journal.close, 10.0)
    ledger, journal = start(folder / "slow", SlowDisk())
    watch = LoopWatch()
    waits = await clients(ledger, 64, 4)
    print(
        f"each sync takes {STALL_S} s: bills waited up to {max(waits):.2f} s, "
        f"the loop up to {watch.stop() * 1e3:.1f} ms"
    )
    await asyncio.to_thread(journal.close, 10.0)


def start(folder: Path, disk: Disk) -> tuple[Ledger, UsageJournal]:
    """A ledger on a journal of its own."""
    process = ProcessFacts(boot_id=make_ulid(), service_version="0", instance_id="bench")
    journal = UsageJournal(folder, JournalSettings(), process, Nowhere(), disk=disk)
    ledger = Ledger(Nowhere(), time, process, journal=journal)
    journal.start(ledger.totals)
    return ledger, journal


def main() -> None:
    """Use a folder on the disk that is meant."""
    parent = sys.argv[1] if len(sys.argv) > 1 else "."
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        uvloop.run(measure(Path(folder)))


if __name__ == "__main__":
    main()

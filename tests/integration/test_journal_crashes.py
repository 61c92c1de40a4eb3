"""Bills and `kill -9`: a whole answer has exactly one bill, wherever the process died."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from provider_core.billing.audit.books import Books
from provider_core.billing.audit.reconcile import Finding, reconcile
from provider_core.billing.audit.sources import read_source
from tests.journal_process import MID_FINAL, MID_TERMINATOR
from tests.serving import KEY

ROOT = Path(__file__).parents[2]
POINTS = [
    "after open:3",
    f"{MID_FINAL}:3",
    "after write:4",
    "after sync:3",
    f"{MID_TERMINATOR}:2",
    "after stdout:3",
    "before E:3",
]
RECOVERY_POINTS = ["recovery 1", "recovery 2", "recovery 3", "recovery 4", "after stdout:1"]


@dataclass
class Boots:
    """One folder, one log, and the processes that served from it one after the other."""

    folder: Path
    completed: set[str] = field(default_factory=set)

    @property
    def log(self) -> Path:
        """What all of them wrote."""
        return self.folder / "log"

    @contextmanager
    def process(
        self, point: str = "", stdout: int | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run one, by default with its output in the log; whoever is left at the end is killed."""
        (self.folder / "port").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.journal_process", str(self.folder), point],
                stdout=log if stdout is None else stdout,
                cwd=ROOT,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    async def port(self, process: subprocess.Popen[bytes]) -> int | None:
        """The port once it serves; `None` if it died first."""
        while process.poll() is None:
            with suppress(FileNotFoundError):
                return int((self.folder / "port").read_text())
            await asyncio.sleep(0.005)
        return None

    async def load(self, process: subprocess.Popen[bytes], port: int, num_clients: int = 4) -> None:
        """Ask as fast as answers come, streamed and whole, until the process is gone."""
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
            await asyncio.gather(
                *(self._client(process, session, port, n % 2 == 0) for n in range(num_clients))
            )

    async def _client(
        self,
        process: subprocess.Popen[bytes],
        session: aiohttp.ClientSession,
        port: int,
        stream: bool,  # noqa: FBT001
    ) -> None:
        body = {
            "model": "test-model",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": stream,
        }
        while process.poll() is None:
            with suppress(aiohttp.ClientError):
                async with session.post(
                    f"http://127.0.0.1:{port}/v1/chat/completions", json=body
                ) as response:
                    text = await response.text()
                if response.status == 200 and (not stream or text.endswith("data: [DONE]\n\n")):
                    self.completed.add(response.headers["X-Generation-Id"])

    async def settle(self) -> None:
        """One boot that recovers whatever is left, and ends well."""
        with self.process() as process:
            assert await self.port(process) is not None
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 20) == 0

    def events(self) -> list[dict[str, Any]]:
        """Every usage line of the log; a crash may have cut the one that was being written."""
        lines = [line for line in self.log.read_bytes().split(b"\n") if line.startswith(b'{"event')]
        events = []
        for line in lines:
            with suppress(json.JSONDecodeError):
                events.append(json.loads(line))
        return [event for event in events if event["event"].startswith("usage.")]

    def reconcile(self) -> list[Finding]:
        """Journal, log and access lines against each other."""
        with Books() as books:
            books.read("journal", read_source(self.folder / "data" / "journal"))
            books.read("log", read_source(self.log))
            return reconcile(books, now_s=time.time(), max_request_s=0)

    def check(self) -> list[dict[str, Any]]:
        """One final of each completed answer, one content of each id, no gap in any boot.

        Returns:
            The finals and adjustments, each once.
        """
        by_id: dict[str, dict[str, Any]] = {}
        for event in self.events():
            if event["event"] != "usage.heartbeat":
                known = by_id.setdefault(event["event_id"], event)
                assert known["content_sha256"] == event["content_sha256"]
        finals = {
            event["generation_id"]: event
            for event in by_id.values()
            if event["event"] == "usage.final"
        }
        assert self.completed - finals.keys() == set()
        assert {finals[generation_id]["status"] for generation_id in self.completed} <= {"ok"}
        seqs = defaultdict(list)
        for event in by_id.values():
            seqs[event["boot_id"]].append(event["seq"])
        for numbers in seqs.values():
            assert sorted(numbers) == list(range(1, len(numbers) + 1))
        assert [found for found in self.reconcile() if found.is_discrepancy] == []
        return list(by_id.values())


async def kill_at_random(boots: Boots, times: int, seed: int) -> None:
    """Load a process and kill it after a while, again and again."""
    rng = random.Random(seed)  # noqa: S311 - moments to die at, repeatable
    for _ in range(times):
        with boots.process() as process:
            port = await boots.port(process)
            assert port is not None
            loading = asyncio.create_task(boots.load(process, port))
            await asyncio.sleep(rng.uniform(0.01, 0.3))
            process.kill()
            await loading
    await boots.settle()


async def test_b1_kill_9_under_load(tmp_path: Path) -> None:
    """Killed ten times at random moments: every completed answer has exactly one bill."""
    boots = Boots(tmp_path)
    await kill_at_random(boots, 10, seed=1)
    events = boots.check()
    assert len(boots.completed) > 10
    assert "interrupted" in {event.get("status") for event in events}


async def faults_at_random(boots: Boots, rounds: int, seed: int) -> None:
    """Load one process after another, and end each in one of three ways."""
    rng = random.Random(seed)  # noqa: S311 - faults, repeatable
    for _ in range(rounds):
        with boots.process() as process:
            port = await boots.port(process)
            assert port is not None
            loading = asyncio.create_task(boots.load(process, port))
            await asyncio.sleep(rng.uniform(0.05, 0.5))
            match rng.choice(["kill", "terminate", "freeze"]):
                case "terminate":
                    process.terminate()
                case "freeze":
                    process.send_signal(signal.SIGSTOP)
                    await asyncio.sleep(0.1)
                    process.send_signal(signal.SIGCONT)
                    await asyncio.sleep(0.1)
                    process.kill()
                case _:
                    process.kill()
            await loading
    await boots.settle()


async def test_b23_faults_at_random_reconcile(tmp_path: Path) -> None:
    """The short form of the soak: whatever ends a server, journal and log agree afterwards."""
    boots = Boots(tmp_path)
    await faults_at_random(boots, 3, seed=23)
    assert boots.check()


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_b23_a_thousand_faults_reconcile(tmp_path: Path) -> None:
    """The same for about an hour, with one journal and one log."""
    boots = Boots(tmp_path)
    await faults_at_random(boots, 1000, seed=24)
    boots.check()
    assert len(boots.completed) > 1000


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_b1_a_thousand_kills(tmp_path: Path) -> None:
    """The same a thousand times, with one journal."""
    boots = Boots(tmp_path)
    await kill_at_random(boots, 1000, seed=2)
    boots.check()
    assert len(boots.completed) > 1000


@pytest.mark.parametrize("point", POINTS)
async def test_b2_kill_9_at_each_point(tmp_path: Path, point: str) -> None:
    """Wherever in the protocol a process dies, its bills are whole after the next start."""
    boots = Boots(tmp_path)
    with boots.process(point) as process:
        port = await boots.port(process)
        assert port is not None
        await boots.load(process, port)
        assert process.returncode == -signal.SIGKILL
    await boots.settle()
    boots.check()


@pytest.mark.parametrize("point", RECOVERY_POINTS)
async def test_b2_kill_9_in_recovery(tmp_path: Path, point: str) -> None:
    """A start that dies while it settles another boot's bills leaves them to the next one."""
    boots = Boots(tmp_path)
    with boots.process("before E:3") as process:
        port = await boots.port(process)
        assert port is not None
        await boots.load(process, port)
    with boots.process(point) as process:
        assert await asyncio.to_thread(process.wait, 20) == -signal.SIGKILL
    await boots.settle()
    boots.check()


@pytest.mark.parametrize("reader", ["stalls", "dies", "is /dev/full"])
async def test_b7_a_log_that_nobody_reads(tmp_path: Path, reader: str) -> None:
    """Requests go on being answered, and a later start writes each line once."""
    boots = Boots(tmp_path)
    read_end, write_end = os.pipe()
    if reader == "is /dev/full":
        os.close(write_end)
        write_end = os.open("/dev/full", os.O_WRONLY)
    with boots.process(stdout=write_end) as process:
        os.close(write_end)
        if reader == "dies":
            os.close(read_end)
        port = await boots.port(process)
        assert port is not None
        loading = asyncio.create_task(boots.load(process, port))
        while len(boots.completed) < 150:  # noqa: ASYNC110 - a pipe takes the lines of 30
            await asyncio.sleep(0.005)
        process.kill()
        await loading
    if reader != "dies":
        with boots.log.open("ab") as log, os.fdopen(read_end, "rb") as pipe:
            log.write(pipe.read())  # the reader wakes up and finds what the pipe had taken
    await boots.settle()
    boots.check()
    events = [event for event in boots.events() if event["event"] == "usage.final"]
    assert len(events) == len({event["event_id"] for event in events})


async def test_b3_sigterm_under_load(tmp_path: Path) -> None:
    """A drain settles all, says its totals at last, and leaves nothing to recover."""
    boots = Boots(tmp_path)
    with boots.process() as process:
        port = await boots.port(process)
        assert port is not None
        loading = asyncio.create_task(boots.load(process, port))
        while len(boots.completed) < 20:  # noqa: ASYNC110 - what the clients got
            await asyncio.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
        await loading
    events = boots.check()
    *_, last = boots.events()
    assert (last["event"], last["closing"], last["journal_unemitted"]) == (
        "usage.heartbeat",
        True,
        0,
    )
    assert (last["finals"], last["last_seq"], last["open_generations"]) == (
        len(events),
        len(events),
        0,
    )
    assert last["sum_completion_tokens"] == sum(event["completion_tokens"] for event in events)
    assert {event["delivery"] for event in events} <= {"sent", "failed"}
    before = boots.log.read_bytes()
    await boots.settle()
    assert b"journal.recovered" not in boots.log.read_bytes()[len(before) :]

"""Server processes that serve from one folder, one after the other, and what all of them wrote."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import aiohttp

from provider_core.billing.audit.books import Books
from provider_core.billing.audit.reconcile import Finding, reconcile
from provider_core.billing.audit.sources import read_source
from tests.serving import KEY

ROOT = Path(__file__).parents[1]
NUM_CLIENTS = 4
CHAT: dict[str, Any] = {"model": "test-model", "messages": [{"role": "user", "content": "hi"}]}


def session_of_key() -> aiohttp.ClientSession:
    """Clients of these servers."""
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"})


def is_whole(stream: str) -> bool:
    """Whether a stream came to its end, and to no error."""
    return stream.endswith("data: [DONE]\n\n") and '"error"' not in stream


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
        self,
        point: str = "",
        stdout: int | None = None,
        tracer: Sequence[str] = (),
        **settings: Any,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run one; whoever is left at the end is killed.

        Args:
            point: Where it dies by itself; see `tests/journal_process.py`.
            stdout: Takes its output; by default the log does.
            tracer: A command that runs it.
            settings: Further ones.
        """
        (self.folder / "port").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [
                    *(*tracer, sys.executable, "-m", "tests.journal_process"),
                    *(str(self.folder), point, json.dumps(settings)),
                ],
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

    async def load(
        self,
        process: subprocess.Popen[bytes],
        port: int,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Ask as fast as answers come, streamed and whole, until the process is gone.

        Args:
            process: Which one.
            port: Where it serves.
            is_over: Ends it, too.
        """
        async with session_of_key() as session:
            await asyncio.gather(
                *(
                    self._client(process, session, port, is_over, stream=number % 2 == 0)
                    for number in range(NUM_CLIENTS)
                )
            )

    async def _client(
        self,
        process: subprocess.Popen[bytes],
        session: aiohttp.ClientSession,
        port: int,
        is_over: Callable[[], bool],
        *,
        stream: bool,
    ) -> None:
        while process.poll() is None and not is_over():
            await self.ask(session, port, stream=stream)

    async def ask(self, session: aiohttp.ClientSession, port: int, *, stream: bool) -> int | None:
        """Ask once, and remember an answer that came whole; its status, if there was one."""
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        try:
            async with session.post(url, json={**CHAT, "stream": stream}) as response:
                text = await response.text()
        except aiohttp.ClientError:
            return None
        if response.status == 200 and (not stream or is_whole(text)):
            self.completed.add(response.headers["X-Generation-Id"])
        return response.status

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

    def check_refunds(self) -> set[str]:
        """Bills are taken back whose answers did not leave, or may not have, and no others.

        Returns:
            The rules that took them back.
        """
        with Books() as books:
            books.read("journal", read_source(self.folder / "data" / "journal"))
            events = list(books.events())
        rules = {e["refers_to"]: e["billing_rule"] for e in events if "refers_to" in e}
        for event in events:
            if event["event"] == "usage.final" and event["cost"] != "0":
                did_leave = event["delivery"] == "sent"
                is_kept = did_leave or (event["stream"] and event["delivery"] == "failed")
                assert (event["event_id"] in rules) is not is_kept, event
        return set(rules.values())

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
        self.check_refunds()
        return list(by_id.values())


class Reader:
    """Reads what a process writes into the log, unless it is told not to.

    Attributes:
        reads: Cleared while the reader stalls.
    """

    def __init__(self, pipe: IO[bytes], log: Path) -> None:
        self.reads = threading.Event()
        self.reads.set()
        self._pipe = pipe
        self._log = log
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Read to the end."""
        self.reads.set()
        self._thread.join()

    def _run(self) -> None:
        with self._log.open("ab") as log:
            while True:
                self.reads.wait()
                chunk = os.read(self._pipe.fileno(), 65536)
                if not chunk:
                    break
                log.write(chunk)
                log.flush()


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

"""Journals on disks that fail as told, for the tests beside this file."""

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provider_core.billing import ProcessFacts, make_generation_id, make_request_id, make_ulid
from provider_core.billing.journal import Disk, UsageJournal
from provider_core.billing.settlement import Ledger, Settlement
from provider_core.billing_settings import JournalSettings
from provider_core.types import Principal, Usage, UsageRecord
from tests import usage_lines
from tests.unit.billing.conftest import MODEL, RUNNER, HandClock

USED = Usage(prompt_tokens=812, cached_tokens=640, completion_tokens=120, generated_tokens=120)
SETTINGS = JournalSettings(min_free_bytes=0)
TIMEOUT_S = 20.0


def until(is_true: Callable[[], object]) -> None:
    """Wait for another thread's doing; the suite's time limit ends a wait in vain."""
    pause = threading.Event()
    while not is_true():
        pause.wait(0.001)


@dataclass
class Log:
    """A log that takes lines, or does not."""

    lines: list[bytes] = field(default_factory=list)
    takes: bool = True

    def emit(self, line: bytes) -> None:
        """Not used with a journal."""
        raise AssertionError(line)

    def write_through(self, line: bytes) -> bool:
        """Take one."""
        if self.takes and line:
            usage_lines.note(line)
            self.lines.append(line)
        return self.takes

    def events(self, *names: str) -> list[dict[str, Any]]:
        """The lines of some kinds, by default finals and adjustments."""
        wanted = names or ("usage.final", "usage.adjustment")
        return [event for event in map(json.loads, self.lines) if event["event"] in wanted]


class LockingDisk(Disk):
    """Remembers what it locked, so that a test can end a process without ending itself."""

    def __init__(self) -> None:
        self.locks: list[int] = []

    def lock(self, path: Path) -> int | None:
        """Lock and remember."""
        fd = super().lock(path)
        if fd is not None:
            self.locks.append(fd)
        return fd

    def close(self, fd: int) -> None:
        """Close and forget."""
        super().close(fd)
        if fd in self.locks:
            self.locks.remove(fd)


class QuickDisk(LockingDisk):
    """Does not sync: for tests of many journals that never lose power."""

    def sync(self, fd: int) -> None:
        """Nothing."""

    def sync_dir(self, directory: Path) -> None:
        """Nothing."""


class FailingDisk(LockingDisk):
    """Fails as its attributes say.

    Attributes:
        write_errno: Of each write, after half of it is written.
        sync_errors: Of the next syncs, in turn.
        was_synced_again: A descriptor whose sync had failed was synced once more.
        free: What the disk says it has left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.write_errno: int | None = None
        self.sync_errors: list[int] = []
        self.was_synced_again = False
        self._poisoned: set[int] = set()
        self.free = 2**40

    def create(self, path: Path) -> int:
        """As a full disk would, it makes no file."""
        if self.write_errno is not None and path.suffix == ".jnl":
            raise OSError(self.write_errno, os.strerror(self.write_errno))
        return super().create(path)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write half, then fail."""
        if self.write_errno is None:
            return super().write(fd, data)
        if len(data) > 64:
            return super().write(fd, data[: len(data) // 2])
        raise OSError(self.write_errno, os.strerror(self.write_errno))

    def sync(self, fd: int) -> None:
        """Fail if there is an error left."""
        self.was_synced_again |= fd in self._poisoned
        if self.sync_errors:
            self._poisoned.add(fd)
            raise OSError(self.sync_errors.pop(0), os.strerror(errno.EIO))
        super().sync(fd)

    def close(self, fd: int) -> None:
        """Close; the number may come again."""
        self._poisoned.discard(fd)
        super().close(fd)

    def free_bytes(self, directory: Path) -> int:
        """As told."""
        return self.free


@dataclass
class Boot:
    """One start of a process: its ledger on its journal."""

    ledger: Ledger
    journal: UsageJournal
    clock: HandClock
    disk: LockingDisk

    def open(self, **overrides: Any) -> Settlement:
        """Admit a generation."""
        facts: dict[str, Any] = {
            "generation_id": make_generation_id(),
            "request_id": make_request_id(),
            "principal": Principal(api_key_id="key_9f31c0", account_id="acme"),
            "model": MODEL,
            "runner_info": RUNNER,
            "endpoint": "chat.completions",
            "stream": True,
            "received_wall_s": self.clock.time(),
            "received_mono_s": self.clock.monotonic(),
        }
        return self.ledger.open(**facts | overrides)

    def settle(self, settlement: Settlement | None = None, **overrides: Any) -> UsageRecord:
        """Settle one generation as complete."""
        outcome: dict[str, Any] = {
            "status": "ok",
            "usage": USED,
            "finish_reason": "stop",
        } | overrides
        return (settlement or self.open()).settle(**outcome)

    def serve(self, count: int = 1) -> list[str]:
        """Serve some generations from admission to delivery; their ids."""
        served = []
        for _ in range(count):
            settlement = self.open()
            self.settle(settlement)
            self.journal.flush(TIMEOUT_S)
            settlement.conclude(is_sent=True)
            served.append(settlement.generation_id)
        return served

    def crash(self) -> None:
        """End as a killed process does: what was written is written, and nothing is said."""
        self.journal.flush(TIMEOUT_S)
        writer = self.journal._writer
        writer._appends.put(None)
        writer._thread.join(TIMEOUT_S)
        emitter = self.journal._emitter
        assert emitter is not None
        emitter._note = lambda _: None
        emitter._heartbeat = lambda _: b""
        emitter.close(TIMEOUT_S)
        for fd in list(self.disk.locks):
            self.disk.close(fd)


@contextmanager
def boot(
    folder: Path,
    log: Log,
    *,
    disk: LockingDisk | None = None,
    settings: JournalSettings = SETTINGS,
    is_crashing: bool = False,
) -> Iterator[Boot]:
    """Start on a folder; close in the end, or crash."""
    clock, disk = HandClock(), disk or LockingDisk()
    process = ProcessFacts(boot_id=make_ulid(), service_version="0.1.0", instance_id="host-1")
    journal = UsageJournal(folder, settings, process, log, disk=disk)
    ledger = Ledger(log, clock, process, journal=journal)
    journal.start(ledger.totals)
    started = Boot(ledger, journal, clock, disk)
    try:
        yield started
    finally:
        if is_crashing:
            started.crash()
        else:
            journal.close(TIMEOUT_S)


def recovered(folder: Path, settings: JournalSettings = SETTINGS) -> list[dict[str, Any]]:
    """What a further start writes about the boots before it."""
    log = Log()
    with boot(folder, log, disk=QuickDisk(), settings=settings):
        pass
    return log.events()

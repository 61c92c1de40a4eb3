"""The journal as a ledger sees it: bills go in, are on disk soon after, and reach the log.

Nothing here blocks the event loop. Three parts do the work: `writer` brings records to the disk,
`emitter` carries them from there to the log, `recovery` looks after earlier boots.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from provider_core.billing.admissions import build_usage_open
from provider_core.billing.events import Delivery, GenerationFacts, ProcessFacts
from provider_core.billing.journal import records
from provider_core.billing.journal.disk import Disk
from provider_core.billing.journal.emitter import Emitter
from provider_core.billing.journal.frames import encode_frame, read_frames
from provider_core.billing.journal.recovery import Recovery
from provider_core.billing.journal.retention import delete_written, size_bytes
from provider_core.billing.journal.segment import lock_path
from provider_core.billing.journal.writer import JournalWriter
from provider_core.billing_settings import JournalSettings
from provider_core.errors import ConfigurationError
from provider_core.interfaces import Clock, UsageWriter
from provider_core.json_lines import encode_line
from provider_core.types import Usage

_DAY_S = 86400.0


class UsageJournal:
    """Keeps the usage events of one boot.

    Args:
        directory: Made if it is missing.
        settings: Sizes, ages and policies.
        process: Of this boot.
        output: Where lines go in the end.
        clock: The time.
        disk: The operating system.
    """

    def __init__(
        self,
        directory: Path,
        settings: JournalSettings,
        process: ProcessFacts,
        output: UsageWriter,
        *,
        clock: Clock = time,
        disk: Disk | None = None,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._process = process
        self._output = output
        self._clock = clock
        self._disk = Disk() if disk is None else disk
        self._lock_fd: int | None = None
        self._last_seq = 0
        self._emitter: Emitter | None = None
        self._is_closed = False
        self._writer = JournalWriter(
            directory,
            process.boot_id,
            process.service_version,
            segment_bytes=settings.segment_bytes,
            min_free_bytes=settings.min_free_bytes,
            disk=self._disk,
            make_room=self._make_room,
        )

    @property
    def problem(self) -> str | None:
        """Why no new billable work may begin, `None` while it may."""
        emitter = self._emitter
        if self._writer.has_died or (emitter is not None and emitter.has_died):
            return "the journal has died"
        if emitter is not None and emitter.blocked_s > self._settings.sink_grace_s:
            return "the usage log takes no lines"
        return self._writer.problem if self._settings.on_failure == "reject" else None

    @property
    def is_whole(self) -> bool:
        """Whether bills are being kept, whatever the settings make of it if not."""
        return self._writer.problem is None and not self._writer.has_died

    @property
    def waives_bills(self) -> bool:
        """Whether what is settled now is not to be billed."""
        return self._settings.on_failure == "serve_unbilled" and not self.is_whole

    @property
    def has_decided_all(self) -> bool:
        """Whether of every event given is known that it is on disk, or failed to get there."""
        return not self._writer.has_died and self._writer.decided_seq >= self._last_seq

    def figures(self) -> dict[str, float]:
        """How it is, for metrics: 1 or 0 for whole or not, and what waits for the log."""
        emitter = self._emitter
        return {
            "up": float(self.is_whole),
            "unemitted_events": float(self._last_seq - (emitter.num_emitted if emitter else 0)),
            "log_blocked_seconds": emitter.blocked_s if emitter else 0.0,
        }

    def start(self, totals: Callable[[], Mapping[str, object]]) -> None:
        """Check the folder, settle what earlier boots left, and begin. Blocks.

        Args:
            totals: The ledger's control totals, for the heartbeat.

        Raises:
            ConfigurationError: The folder cannot be used; says why, and which setting waives it.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._probe()
            self._lock_fd = self._disk.lock(lock_path(self._directory, self._process.boot_id))
            owed = Recovery(
                self._directory,
                self._process,
                disk=self._disk,
                bill_unknown_delivery=self._settings.bill_unknown_delivery,
            ).run()
            self._writer.start()
        except OSError as error:
            self._unlock(owes_nothing=True)
            raise ConfigurationError(
                f"the journal's folder {self._directory} cannot be used: "
                f"{error.strerror or type(error).__name__}; set PROVIDER_JOURNAL__DIR to a folder "
                "that can be written, or PROVIDER_JOURNAL__ENABLED=false to let bills end with "
                "the process"
            ) from error
        self._emitter = Emitter(
            self._writer.shared,
            self._writer.note,
            self._output,
            clock=self._clock,
            disk=self._disk,
            heartbeat=lambda is_last: self._heartbeat(totals(), is_closing=is_last),
            opened=self._opened_line if self._settings.log_open else None,
            owed=owed,
        )
        self._emitter.start()

    def opened(self, facts: GenerationFacts, admitted_s: float) -> None:
        """Note an admission, so that a crash does not hide it."""
        self._writer.note(records.opened(facts, admitted_s))
        self._disk.reach("after open")

    def progressed(self, generation_id: str, usage: Usage) -> None:
        """Note how far a long generation has come."""
        self._writer.note(records.progress(generation_id, usage))

    def commit(self, seq: int, line: bytes, decided: Callable[[], None] = lambda: None) -> None:
        """Bring a usage event to the disk; see `JournalWriter.commit`."""
        self._last_seq = seq
        self._writer.commit(seq, line, decided)

    async def until_decided(self, seq: int) -> None:
        """Until an event is on disk, or could not be brought there."""
        await self._writer.until_decided(seq)

    def delivered(self, seq: int, delivery: Delivery) -> None:
        """Say what became of the answer of a bill whose line said `unknown`."""
        self._writer.note(records.delivered(seq, delivery))
        self._disk.reach("after delivery")

    def flush(self, timeout_s: float) -> bool:
        """Wait until every event given is on disk; for a process about to end at once."""
        return self._writer.flush(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Bring what is left to disk and log, and end. Idempotent; blocks.

        What the log does not take in time, the next start gives it.
        """
        emitter = self._emitter
        if emitter is None or self._is_closed:
            return
        self._is_closed = True
        until_s = time.monotonic() + timeout_s
        self._writer.flush(timeout_s)
        emitter.close(max(until_s - time.monotonic(), 0.0))
        left_s = max(until_s - time.monotonic(), 0.1)
        self._writer.close(left_s, is_complete=emitter.owes_nothing)
        self._unlock(owes_nothing=emitter.owes_nothing)

    def _unlock(self, *, owes_nothing: bool) -> None:
        """Let go of this boot; a later start looks after what it owes."""
        fd, self._lock_fd = self._lock_fd, None
        if fd is None:
            return
        if owes_nothing:
            with suppress(OSError):
                lock_path(self._directory, self._process.boot_id).unlink()
        self._disk.close(fd)

    def _probe(self) -> None:
        """Write, sync and read back a file.

        Raises:
            OSError: The folder does not keep what is written to it.
        """
        path = self._directory / f"probe-{self._process.boot_id}"
        payload = records.header(
            boot_id=self._process.boot_id,
            service_version=self._process.service_version,
            last_seq=0,
            recovery=0,
        )
        fd = self._disk.create(path)
        try:
            self._disk.write(fd, encode_frame(payload))
            self._disk.sync(fd)
            if list(read_frames(path)) != [payload]:
                raise OSError("it does not keep what is written to it")
        finally:
            self._disk.close(fd)
            path.unlink()

    def _make_room(self) -> None:
        """Delete what is old, or all that the log has when there is too much or no room."""
        settings = self._settings
        is_tight = (
            size_bytes(self._directory) > settings.max_bytes
            or self._disk.free_bytes(self._directory) < settings.min_free_bytes
        )
        delete_written(
            self._directory,
            self._process.boot_id,
            [span.path for span in self._writer.shared.spans],
            older_than_s=0.0 if is_tight else settings.retention_days * _DAY_S,
        )

    def _opened_line(self, record: records.Record) -> bytes:
        facts = records.facts_of(record)
        return encode_line(build_usage_open(self._process, facts, record["admitted_s"]))

    def _heartbeat(self, totals: Mapping[str, object], *, is_closing: bool) -> bytes:
        emitter = self._emitter
        num_emitted = 0 if emitter is None else emitter.num_emitted
        fields = {
            "event": "usage.heartbeat",
            **totals,
            "journal_unemitted": self._last_seq - num_emitted,
            "journal_bytes": size_bytes(self._directory),
            "journal_state": self._writer.problem or "ok",
        }
        if is_closing:
            fields["closing"] = True
        return encode_line(fields)

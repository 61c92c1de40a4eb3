"""What a start does for boots that did not end well: settle, and have emitted what they owe.

A boot whose lock is free and whose last record is not `X` ended in a crash. Its generations
without a bill get one that says `interrupted` (R8 of the published policy). Bills of answers of
which nobody knows whether they left are taken back (R9), and of whole ones that did not (R5). Lines
that the log may lack are written again. All of it goes into a further file of that boot, so that
nothing is ever appended to what a crash has torn, and doing it twice does nothing.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import structlog

from provider_core.billing.adjustments import build_adjustment
from provider_core.billing.events import (
    Outcome,
    ProcessFacts,
    Timeline,
    build_usage_final,
    encode_event,
)
from provider_core.billing.journal import records
from provider_core.billing.journal.disk import Disk
from provider_core.billing.journal.emitter import Owed
from provider_core.billing.journal.frames import Damage, encode_frame
from provider_core.billing.journal.records import Record
from provider_core.billing.journal.segment import (
    Segment,
    is_closed,
    lock_path,
    segment_path,
    segments_by_boot,
)
from provider_core.types import Usage

log = structlog.get_logger()


@dataclass(slots=True)
class _Boot:
    """What the files of one boot say."""

    last_seq: int = 0
    num_recoveries: int = 0
    open: dict[str, Record] = field(default_factory=dict)  # `O` by generation id
    progress: dict[str, Record] = field(default_factory=dict)
    in_doubt: dict[int, Record] = field(default_factory=dict)  # billed, and not known to be sent
    emitted: set[int] = field(default_factory=set)
    deliveries: dict[int, str] = field(default_factory=dict)

    def read(self, record: Record) -> None:
        """Take one record into account; records may repeat."""
        match record["rec"]:
            case "H":
                self.last_seq = max(self.last_seq, record["last_seq"])
                self.num_recoveries = max(self.num_recoveries, record["recovery"])
            case "O":
                self.open[record["generation_id"]] = record
            case "P":
                self.progress[record["generation_id"]] = record
            case "F":
                self._read_event(record["body"])
            case "D":
                self.deliveries[record["seq"]] = record["delivery"]
                if record["delivery"] == "sent":
                    self.in_doubt.pop(record["seq"], None)
            case "E":
                self.emitted.update(record["seqs"])

    def _read_event(self, body: Record) -> None:
        self.last_seq = max(self.last_seq, body["seq"])
        self.open.pop(body["generation_id"], None)
        self.progress.pop(body["generation_id"], None)
        if body["event"] == "usage.adjustment":
            self.in_doubt = {
                seq: final
                for seq, final in self.in_doubt.items()
                if final["event_id"] != body["refers_to"]
            }
        elif body["delivery"] == "unknown" and self.deliveries.get(body["seq"]) != "sent":
            self.in_doubt[body["seq"]] = body


class Recovery:
    """Looks after the boots of a journal's folder that are not ours.

    Args:
        directory: The folder.
        process: Of this boot.
        disk: The operating system.
        bill_unknown_delivery: Keep the bills of answers of which nobody knows whether they left.
    """

    def __init__(
        self,
        directory: Path,
        process: ProcessFacts,
        *,
        disk: Disk,
        bill_unknown_delivery: bool,
    ) -> None:
        self._directory = directory
        self._process = process
        self._disk = disk
        self._bill_unknown_delivery = bill_unknown_delivery

    def run(self) -> list[Owed]:
        """Settle what crashed boots left open.

        Returns:
            What they owe the log; their locks are held until each `finish`.

        Raises:
            OSError: The folder cannot be read or written.
        """
        owed = []
        for boot_id, found in segments_by_boot(self._directory).items():
            if boot_id == self._process.boot_id or is_closed(found):
                continue
            lock = lock_path(self._directory, boot_id)
            fd = self._disk.lock(lock)
            if fd is None:
                continue  # it lives, or somebody else is looking after it
            segments = segments_by_boot(self._directory).get(boot_id, {})
            if not segments or is_closed(segments):
                lock.unlink(missing_ok=True)
                self._disk.close(fd)
                continue
            owed.append(self._recover(boot_id, segments, fd))
        return owed

    def _recover(self, boot_id: str, segments: dict[int, Path], lock_fd: int) -> Owed:
        numbers = sorted(segments)
        boot = _Boot()
        for number in numbers:
            self._read(segments[number], boot)
        self._disk.reach("recovery 1")
        attempt = boot.num_recoveries + 1
        path = segment_path(self._directory, boot_id, numbers[-1] + 1)
        head = records.header(
            boot_id=boot_id,
            service_version=self._process.service_version,
            last_seq=boot.last_seq,
            recovery=attempt,
        )
        lines = [*self._interrupted(boot_id, boot), *self._taken_back(boot_id, boot)]
        payloads = [head, *map(records.final, lines)]
        segment = Segment(self._disk, path)
        try:
            segment.write(b"".join(map(encode_frame, payloads)))
            self._disk.reach("recovery 2")
            segment.sync()
            self._disk.sync_dir(self._directory)
        except OSError:
            segment.close()
            path.unlink()
            raise
        log.warning("journal.recovered", boot_id=boot_id, interrupted=len(boot.open))

        def note(seqs: Iterable[int]) -> None:
            segment.write(encode_frame(records.emitted(seqs)))

        def finish() -> None:
            segment.write(encode_frame(records.closed()))
            segment.sync()
            segment.close()
            self._disk.reach("recovery 4")
            lock_path(self._directory, boot_id).unlink(missing_ok=True)
            self._disk.close(lock_fd)

        return Owed(
            paths=[*(segments[number] for number in numbers), path],
            emitted=boot.emitted,
            deliveries=boot.deliveries,
            attempt=attempt + 1,
            note=note,
            finish=finish,
        )

    def _read(self, path: Path, boot: _Boot) -> None:
        """Read one file, and keep aside what a disk has damaged amid it."""
        for record in records.read_records(path):
            if isinstance(record, Damage):
                if not record.is_tail:
                    aside = path.with_suffix(f".{record.offset}.corrupt")
                    aside.write_bytes(record.data)
                    log.error("journal.corrupt", bytes=len(record.data), kept=aside.name)
            else:
                boot.read(record)

    def _interrupted(self, boot_id: str, boot: _Boot) -> Iterable[bytes]:
        """Bills of generations that a crash ended: R8, not billable."""
        process = replace(self._process, boot_id=boot_id)
        for generation_id, record in boot.open.items():
            facts = records.facts_of(record)
            done = boot.progress.get(generation_id)
            outcome = Outcome(
                status="interrupted",
                usage=Usage() if done is None else records.usage_of(done),
                delivery="failed",
            )
            lived_s = max(time.time() - facts.received_wall_s, 0.0)
            timeline = Timeline(admitted_s=record["admitted_s"], finished_s=lived_s)
            boot.last_seq += 1
            event, _, _ = build_usage_final(process, facts, timeline, outcome, seq=boot.last_seq)
            event["durable"] = event["recovered"] = True
            yield encode_event(event)

    def _taken_back(self, boot_id: str, boot: _Boot) -> Iterable[bytes]:
        """Adjustments of bills whose answers may not have left (R9), or whole did not (R5)."""
        for seq, final in boot.in_doubt.items():
            has_failed = seq in boot.deliveries
            is_kept = final["stream"] if has_failed else self._bill_unknown_delivery
            if is_kept or not final["billable"] or final["cost"] == "0":
                continue
            boot.last_seq += 1
            event = build_adjustment(
                final,
                cost_delta=-Decimal(final["cost"]),
                reason="delivery_failed" if has_failed else "delivery_unknown",
                rule="R5" if has_failed else "R9",
                boot_id=boot_id,
                seq=boot.last_seq,
                wall_s=time.time(),
                service_version=self._process.service_version,
            )
            event["recovered"] = True
            yield encode_event(event)

"""The emitter: one thread that carries bills from the journal's files to the log.

It reads what the writer has finished, so a reader of the log that stalls costs disk and neither
memory nor requests. What the log has taken is noted in the journal: the cursor of a later start. A
line whose answer is still leaving waits for word of its delivery.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import structlog

from provider_core.billing.journal import records
from provider_core.billing.journal.disk import Disk
from provider_core.billing.journal.frames import Damage
from provider_core.billing.journal.records import Record
from provider_core.billing.journal.writer import Shared
from provider_core.interfaces import Clock, UsageWriter
from provider_core.json_lines import encode_line, format_timestamp

log = structlog.get_logger()

_CHUNK_BYTES = 65536
_BATCH = 64  # lines noted at a time: as many may be written twice after a crash
_HEARTBEAT_S = 60.0
_RETRY_S = 1.0


@dataclass(slots=True)
class Owed:
    """What a boot that has ended may still owe the log.

    Attributes:
        paths: Its files, in order.
        emitted: `seq` of the lines that the log has.
        deliveries: Of the others, what is known.
        attempt: How often they are offered, this time included.
        note: Told of lines that the log has taken.
        finish: Called once it owes nothing.
    """

    paths: Sequence[Path]
    emitted: set[int]
    deliveries: Mapping[int, str]
    attempt: int
    note: Callable[[Iterable[int]], None]
    finish: Callable[[], None]


class Emitter:
    """Writes the lines of one journal, and before them those that others owe.

    Args:
        shared: What the journal's writer has finished.
        note: Appends a record to the journal.
        output: Takes the lines.
        clock: The time.
        disk: For its labelled points.
        heartbeat: Makes the line of control totals, given whether it is the last.
        opened: Makes the line of an admission; by default there is none.
        owed: Of boots that have ended.

    Attributes:
        num_emitted: Lines of this boot that the log has.
        owes_nothing: After `close`: every line has left, with word of its delivery.
    """

    def __init__(
        self,
        shared: Shared,
        note: Callable[[bytes], None],
        output: UsageWriter,
        *,
        clock: Clock,
        disk: Disk,
        heartbeat: Callable[[bool], bytes],
        opened: Callable[[Record], bytes] | None = None,
        owed: Sequence[Owed] = (),
    ) -> None:
        self.num_emitted = 0
        self.owes_nothing = False
        self._shared = shared
        self._note = note
        self._output = output
        self._clock = clock
        self._disk = disk
        self._heartbeat = heartbeat
        self._opened = opened
        self._owed = owed
        self._fd = -1  # of the first span, or none
        self._offset = 0
        self._waiting: dict[int, Record] = {}  # for word of their delivery
        self._undurable: set[int] = set()  # written before the journal had them
        self._blocked_since_s: float | None = None
        self._next_heartbeat_s = clock.monotonic() + _HEARTBEAT_S
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage-emitter", daemon=True)

    @property
    def blocked_s(self) -> float:
        """For how long the log has not got the line that is due."""
        since_s = self._blocked_since_s
        return 0.0 if since_s is None else self._clock.monotonic() - since_s

    @property
    def has_died(self) -> bool:
        """Whether it ended by a bug, and lines are not written any more."""
        return self._thread.ident is not None and not (
            self._thread.is_alive() or self._is_closing.is_set()
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Write what the journal has, then the last control totals, and end.

        Args:
            timeout_s: Give up on a log that does not take lines after this long.
        """
        self._is_closing.set()
        self._shared.news.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        has_paid = True
        for owed in self._owed:
            has_paid = self._pay(owed) and has_paid
        is_last = False
        while not is_last:
            self._shared.news.wait(_RETRY_S)
            self._shared.news.clear()
            is_last = self._is_closing.is_set()
            try:
                is_done = self._write_undurable() and self._follow()
                self._blocked_since_s = None
                if is_last or self._clock.monotonic() >= self._next_heartbeat_s:
                    self._next_heartbeat_s = self._clock.monotonic() + _HEARTBEAT_S
                    is_done = self._write(self._heartbeat(is_last)) and is_done
            except OSError as error:  # the journal cannot be read; nothing is lost by waiting
                is_done = False
                if self._blocked_since_s is None:
                    self._blocked_since_s = self._clock.monotonic()
                    log.error("journal.unreadable", error=error)  # noqa: TRY400 - no bug of ours
        if self._fd >= 0:
            os.close(self._fd)
        self.owes_nothing = is_done and not self._waiting and has_paid

    def _write_undurable(self) -> bool:
        """Write the bills that no disk would take."""
        lines = self._shared.undurable
        while lines:
            body: Record = orjson.loads(lines[0])
            if not self._write_event(body):
                return False
            self._undurable.add(body["seq"])
            lines.popleft()
        return True

    def _follow(self) -> bool:
        """Write what the journal's files have beyond the place where reading stopped."""
        spans = self._shared.spans
        while True:
            has_next = len(spans) > 1  # asked first: only then is the end of this one the last
            span = spans[0]
            if self._fd < 0:
                self._fd, self._offset = os.open(span.path, os.O_RDONLY), 0
            if self._offset < span.end:
                frames = self._read_frames(span.end)
                num_taken = self._take(frames)
                self._offset += sum(map(len, frames[:num_taken]))
                if num_taken < len(frames):
                    return False
            elif has_next:
                os.close(self._fd)
                self._fd = -1
                spans.popleft()
            else:
                return True

    def _read_frames(self, end: int) -> list[bytes]:
        """Read on: one frame at least, however long it is; what `end` cuts is damage.

        Raises:
            OSError: The file cannot be read, or ends before `end`.
        """
        size = _CHUNK_BYTES
        while True:
            wanted = min(end - self._offset, size)
            chunk = os.pread(self._fd, wanted, self._offset)
            whole = chunk[: chunk.rfind(b"\n") + 1]
            if whole:
                return whole.splitlines(keepends=True)
            if len(chunk) < wanted:
                raise OSError(errno.EIO, "the journal's file is shorter than what was written")
            if wanted < size:
                return [chunk]
            size *= 2

    def _take(self, frames: list[bytes]) -> int:
        """Write the lines of some frames, and say of how many: fewer if the log takes no more."""
        emitted: list[int] = []
        num_taken = 0
        for frame in frames:
            record = records.decode_line(frame)
            if record is None:
                log.error("journal.corrupt", bytes=len(frame))
            elif not self._take_record(record, emitted):
                break
            num_taken += 1
        if emitted:
            self.num_emitted += len(emitted)
            self._disk.reach("before E")
            self._note(records.emitted(emitted))
        return num_taken

    def _take_record(self, record: Record, emitted: list[int]) -> bool:
        """Write the line that a record makes ready, if any; `False`, and nothing done, if not."""
        if record["rec"] == "O" and self._opened is not None:
            return self._write(self._opened(record))
        body = self._due(record)
        if body is None:
            return True
        seq = body["seq"]
        if seq not in self._undurable and not self._write_event(body):
            return False
        self._undurable.discard(seq)
        self._waiting.pop(seq, None)
        emitted.append(seq)
        return True

    def _due(self, record: Record) -> Record | None:
        """The event that a record makes ready to leave."""
        match record["rec"]:
            case "F":
                body: Record = record["body"]
                if body.get("delivery") == "unknown" and body["seq"] not in self._undurable:
                    self._waiting[body["seq"]] = body
                    return None
                return body
            case "D":
                waiting = self._waiting.get(record["seq"])
                return None if waiting is None else waiting | {"delivery": record["delivery"]}
            case _:
                return None

    def _pay(self, owed: Owed) -> bool:
        """Write what an earlier boot owes; `False` if some of it must be left to a later start."""
        batch: list[int] = []
        is_paid = True
        try:
            for body in _finals(owed.paths):
                seq = body["seq"]
                if seq in owed.emitted:
                    continue
                if body.get("delivery") == "unknown":
                    body["delivery"] = owed.deliveries.get(seq, "unknown")
                body |= {"recovered": True, "emit_attempt": owed.attempt}
                if not self._write_event(body):
                    is_paid = False
                    break
                owed.emitted.add(seq)
                batch.append(seq)
                if len(batch) == _BATCH:
                    owed.note(batch)
                    batch = []
            self._disk.reach("recovery 3")
            if batch:
                owed.note(batch)
            if is_paid:
                owed.finish()
        except OSError as error:
            log.error("journal.unreadable", error=error)  # noqa: TRY400 - no bug of ours
            return False
        return is_paid

    def _write_event(self, body: Record) -> bool:
        return self._write(encode_line(body | {"emitted_at": format_timestamp(self._clock.time())}))

    def _write(self, line: bytes) -> bool:
        """Write one line, however long the log takes to take it; `False` if it must be left."""
        self._blocked_since_s = self._clock.monotonic()
        is_told = False
        while not self._output.write_through(line):
            if not is_told:
                log.error("usage.blocked")
                is_told = True
            if self._is_closing.wait(_RETRY_S):
                return False
        self._disk.reach("after stdout")
        self._blocked_since_s = None
        return True


def _finals(paths: Iterable[Path]) -> Iterator[Record]:
    """Every event in some files, damage left out."""
    for path in paths:
        for record in records.read_records(path):
            if not isinstance(record, Damage) and record["rec"] == "F":
                yield record["body"]

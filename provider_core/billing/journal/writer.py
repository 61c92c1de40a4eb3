"""The journal's writer: one thread, many bills to a sync.

Whoever settles gives a frame and goes on; the thread takes all that wait, writes them in one piece,
calls `fdatasync` once, and says so. While a sync runs the next group gathers, so a slow disk makes
groups larger and never more numerous. Frames that nobody waits for (admissions, deliveries) join
the next group or go after a moment.

A segment that failed is given up: what was not synced moves to a new one. If that fails as well,
the journal is broken until a new segment works; bills then leave through the log alone, marked as
not durable, and are added to the journal afterwards.
"""

import asyncio
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from provider_core.billing.journal import records
from provider_core.billing.journal.disk import Disk
from provider_core.billing.journal.frames import encode_frame
from provider_core.billing.journal.segment import Segment, segment_path

log = structlog.get_logger()

_MAX_GROUP = 256
_GATHER_S = 0.002  # that frames nobody waits for may lie in memory
_TICK_S = 1.0  # between looks at the disk, and between repairs
_ROOM_AFTER_S = 10.0  # from the start: others read first what earlier boots have left
_ROOM_EVERY_S = 3600.0
_SLOW_SYNC_S = 0.25
_STALLED_S = 10.0
_MAX_UNSYNCED = 8192  # frames; past an eighth of that a sync comes without being asked for


@dataclass(slots=True)
class _Append:
    frame: bytes
    seq: int = 0  # of a bill that somebody waits for
    line: bytes = b""
    decided: Callable[[], None] = lambda: None
    done: threading.Event | None = None

    @property
    def is_urgent(self) -> bool:
        return self.seq > 0 or self.done is not None


@dataclass(slots=True)
class Span:
    """The part of a file that may be read: whole frames, synced as far as they must be."""

    path: Path
    end: int = 0


@dataclass(slots=True)
class Shared:
    """What the writer's thread tells others; each field has one writer."""

    spans: deque[Span] = field(default_factory=deque)  # the first is being read, the last written
    undurable: deque[bytes] = field(default_factory=deque)  # bills that no disk would take
    news: threading.Event = field(default_factory=threading.Event)


class JournalWriter:
    """Appends frames to the segments of this boot.

    Args:
        directory: Where segments lie; must exist.
        boot_id: Of this start of the process.
        service_version: Noted in every segment.
        segment_bytes: Size at which a segment is full.
        min_free_bytes: Of the disk, below which `problem` says so.
        disk: The operating system.
        make_room: Called on the writer's thread soon after the start, every hour, and when the
            disk is full or a segment is; deletes what is not needed any more.

    Attributes:
        shared: What may be read and emitted.
        has_died: By a bug; nothing is kept any more.
    """

    def __init__(
        self,
        directory: Path,
        boot_id: str,
        service_version: str,
        *,
        segment_bytes: int,
        min_free_bytes: int,
        disk: Disk,
        make_room: Callable[[], None] = lambda: None,
    ) -> None:
        self.shared = Shared()
        self.has_died = False
        self._directory = directory
        self._boot_id = boot_id
        self._service_version = service_version
        self._segment_bytes = segment_bytes
        self._min_free_bytes = min_free_bytes
        self._disk = disk
        self._make_room = make_room
        self._appends: queue.SimpleQueue[_Append | None] = queue.SimpleQueue()
        self._segment: Segment | None = None
        self._number = 0
        self._last_seq = 0
        self._unsynced: deque[bytes] = deque(maxlen=_MAX_UNSYNCED)
        self._failure: str | None = None
        self._has_room = True
        self._looked_s = 0.0
        self._room_from_s = self._room_due_s = 0.0
        self._writing_since_s: float | None = None
        self._decided_seq = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    @property
    def decided_seq(self) -> int:
        """Up to here bills are on disk, or have failed to get there."""
        return self._decided_seq

    @property
    def problem(self) -> str | None:
        """Why bills cannot be kept right now, `None` while they can."""
        since_s = self._writing_since_s
        if self._failure is not None:
            return self._failure
        if not self._has_room:
            return "the journal's disk is almost full"
        if since_s is not None and time.monotonic() - since_s > _STALLED_S:
            return "the journal's disk does not answer"
        return None

    def start(self) -> None:
        """Make the first segment and begin.

        Raises:
            OSError: The folder cannot be written.
        """
        self._segment = self._new_segment(())
        self._room_from_s = self._room_due_s = time.monotonic() + _ROOM_AFTER_S
        self._look_at_disk()
        self._thread.start()

    def note(self, payload: bytes) -> None:
        """Append a record that nobody waits for. Never blocks."""
        self._appends.put(_Append(encode_frame(payload)))

    def commit(self, seq: int, line: bytes, decided: Callable[[], None] = lambda: None) -> None:
        """Append a usage event; `until_decided` waits for it. Never blocks.

        Args:
            seq: Of the event; each is one more than the one before.
            line: With its newline.
            decided: Called on the writer's thread, in the order of `seq`, once the event is on
                disk or has failed to get there, before whoever waits; must not block nor raise.
        """
        self._appends.put(_Append(encode_frame(records.final(line)), seq, line, decided))

    async def until_decided(self, seq: int) -> None:
        """Until an event is on disk, or could not be brought there."""
        if seq <= self._decided_seq:
            return
        loop = self._loop = asyncio.get_running_loop()
        decided = loop.create_future()
        self._waiters.append((seq, decided))
        if seq <= self._decided_seq:  # decided before the writer could see that somebody waits
            self._wake_waiters()
        await decided

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything given so far is on disk; `False` if that takes too long."""
        if self.has_died:
            return False
        done = threading.Event()
        self._appends.put(_Append(b"", done=done))
        return done.wait(timeout_s)

    def close(self, timeout_s: float, *, is_complete: bool) -> None:
        """Write what waits and end.

        Args:
            timeout_s: Longest wait for the disk.
            is_complete: The log has every line, so that no later start need look at this boot.
        """
        if is_complete and self._failure is None:
            self.note(records.closed())
        self.flush(timeout_s)
        self._appends.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._write_groups()
        except BaseException:  # a bug of ours: let nobody wait for what will not come
            self.has_died = True
            self._decided_seq = sys.maxsize
            self._tell_waiters()
            raise

    def _write_groups(self) -> None:
        while True:
            group, is_last = self._next_group()
            if group:
                self._writing_since_s = started_s = time.monotonic()
                self._write_group(group)
                self._writing_since_s = None
                took_s = time.monotonic() - started_s
                if took_s > _SLOW_SYNC_S:
                    log.warning("journal.slow", group_s=round(took_s, 3), records=len(group))
            if is_last:
                break
            if time.monotonic() - self._looked_s > _TICK_S:
                self._look_at_disk()
                if self._failure is not None and self._renew():
                    self.shared.news.set()
        if self._segment is not None:
            self._segment.close()

    def _next_group(self) -> tuple[list[_Append], bool]:
        """What waits, once somebody waits for it or a moment has passed; and whether to end."""
        group: list[_Append] = []
        until_s = time.monotonic() + _TICK_S
        is_urgent = False
        while len(group) < _MAX_GROUP:
            wait_s = 0.0 if is_urgent else until_s - time.monotonic()
            try:
                append = self._appends.get(block=wait_s > 0, timeout=max(wait_s, 0.001))
            except queue.Empty:
                break
            if append is None:
                return group, True
            if not group:
                until_s = time.monotonic() + _GATHER_S
            group.append(append)
            is_urgent = is_urgent or append.is_urgent
        return group, False

    def _write_group(self, group: list[_Append]) -> None:
        if self._failure is not None and any(append.done is not None for append in group):
            self._renew()  # a process that is about to end has no later chance
        is_durable = self._failure is None and self._store(
            [append.frame for append in group if append.frame],
            must_sync=any(append.is_urgent for append in group),
        )
        if not is_durable:
            self._keep_undurable(group)
        decided_seq = max(append.seq for append in group)
        if decided_seq:
            for append in group:
                append.decided()
            self._last_seq = self._decided_seq = decided_seq
            self._disk.reach("after sync")
            self._tell_waiters()
        for append in group:
            if append.done is not None:
                append.done.set()
        self.shared.news.set()

    def _store(self, frames: list[bytes], *, must_sync: bool) -> bool:
        """Bring frames to the disk, by way of a new segment if this one is full or fails."""
        segment = self._segment
        self._unsynced += frames
        try:
            if segment is not None and segment.size < self._segment_bytes:
                segment.write(b"".join(frames))
                self._disk.reach("after write")
                if must_sync or len(self._unsynced) > _MAX_UNSYNCED // 8:
                    segment.sync()
                    self._unsynced.clear()
                self.shared.spans[-1].end = segment.size
                return True
        except OSError as error:
            log.error("journal.failed", error=_reason(error), segment=self._number)  # noqa: TRY400 - no bug of ours
        if self._renew():
            return True
        for _ in frames:
            self._unsynced.pop()
        return False

    def _renew(self) -> bool:
        """Leave the segment, and begin a new one with what is not known to be on disk."""
        segment, self._segment = self._segment, None
        if segment is not None:
            with suppress(OSError):
                segment.close()
        try:
            self._make_room()
            self._segment = self._new_segment(self._unsynced)
        except OSError as error:
            self._failure = f"the journal cannot be written: {_reason(error)}"
            return False
        self._unsynced.clear()
        if self._failure is not None:
            log.info("journal.repaired", segment=self._number)
            self._failure = None
        return True

    def _keep_undurable(self, group: list[_Append]) -> None:
        """Let bills leave by the log alone, and keep all of the group for a repair."""
        for append in group:
            if append.seq:
                line = append.line.replace(b'"durable":true', b'"durable":false', 1)
                self.shared.undurable.append(line)
                self._unsynced.append(encode_frame(records.final(line)))
            elif append.frame:
                self._unsynced.append(append.frame)

    def _new_segment(self, frames: Iterable[bytes]) -> Segment:
        """Make the next segment, whole and synced with its folder, or none at all."""
        self._number += 1
        path = segment_path(self._directory, self._boot_id, self._number)
        segment = Segment(self._disk, path)
        head = records.header(
            boot_id=self._boot_id,
            service_version=self._service_version,
            last_seq=self._last_seq,
            recovery=0,
        )
        try:
            segment.write(b"".join([encode_frame(head), *frames]))
            segment.sync()
            self._disk.sync_dir(self._directory)
        except OSError:
            with suppress(OSError):
                segment.close()
                path.unlink()
            raise
        self.shared.spans.append(Span(path, segment.size))
        return segment

    def _look_at_disk(self) -> None:
        self._looked_s = now_s = time.monotonic()
        self._has_room = self._is_roomy()
        if now_s < (self._room_due_s if self._has_room else self._room_from_s):
            return
        self._room_due_s = now_s + _ROOM_EVERY_S
        with suppress(OSError):
            self._make_room()
        self._has_room = self._is_roomy()

    def _is_roomy(self) -> bool:
        try:
            return self._disk.free_bytes(self._directory) >= self._min_free_bytes
        except OSError:
            return False

    def _tell_waiters(self) -> None:
        if self._waiters and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self._loop.call_soon_threadsafe(self._wake_waiters)

    def _wake_waiters(self) -> None:
        """Let those go on whose bills are decided; on the loop's thread."""
        waiters, self._waiters = self._waiters, []
        for seq, decided in waiters:
            if seq > self._decided_seq:
                self._waiters.append((seq, decided))
            elif not decided.done():
                decided.set_result(None)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__

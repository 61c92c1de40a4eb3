"""A thread that writes lines, so that a stalled reader of stdout never stalls a request.

A pipe whose reader sleeps takes 64 KiB and then blocks the writer. Only this thread meets that.
Under pressure logs are dropped and counted; usage lines are kept, in memory, until they are out.
"""

import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from provider_core.json_lines import encode_line, format_timestamp

_ATOMIC_BYTES = 4096  # PIPE_BUF: a write up to here is never interleaved with another process's
_FULL_PIPE_S = 0.01


class LineWriter:
    """Writes lines to a file descriptor, in order, from its own thread.

    It is the `UsageSink` of usage lines and the output of structlog. What is given after `close`
    is not written.

    Args:
        fd: Duplicated, so that nobody else's closing of it matters.
        max_waiting: Lines that may wait before logs are dropped.
        render: Turns a JSON line into what is written, in the thread; for terminals. Must not
            raise.
        retry_s: Pause after a failed write.
    """

    def __init__(
        self,
        fd: int,
        *,
        max_waiting: int = 8192,
        render: Callable[[bytes], bytes] = bytes,
        retry_s: float = 1.0,
    ) -> None:
        self._fd = os.dup(fd)
        self._max_waiting = max_waiting
        self._render = render
        self._retry_s = retry_s
        self._lines: queue.SimpleQueue[tuple[bytes, bool] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._num_dropped = 0
        self._num_warnings: Counter[str] = Counter()
        self._is_closing = threading.Event()
        self._error: str | None = None
        self._writing = threading.Lock()
        self._has_lost_usage = False
        self._thread = threading.Thread(target=self._run, name="line-writer", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Lines not written yet."""
        return self._lines.qsize()

    @property
    def num_dropped(self) -> int:
        """Logs dropped since start; usage lines never are."""
        return self._num_dropped

    @property
    def num_warnings(self) -> Mapping[str, int]:
        """Logs at `warning` and above since start, dropped ones too, by event."""
        with self._lock:
            return dict(self._num_warnings)

    @property
    def error(self) -> str | None:
        """Why the last write failed, `None` while writing works."""
        return self._error

    def write(self, line: bytes) -> None:
        """Take a log line, newline included, or drop it if too many wait. Never blocks."""
        if self._lines.qsize() < self._max_waiting:
            self._lines.put((line, False))
        else:
            with self._lock:
                self._num_dropped += 1

    def count_warning(self, event: str) -> None:
        """Note that a log at `warning` or above was made."""
        with self._lock:
            self._num_warnings[event] += 1

    def emit(self, line: bytes) -> None:
        """Take a usage line, newline included. Never blocks and never drops."""
        self._lines.put((line, True))

    def write_through(self, line: bytes) -> bool:
        """Write a usage line, newline included, in the caller's thread; the `UsageWriter`'s.

        Returns:
            Whether it was written; if not, what was written of it is ended by a newline first the
            next time.
        """
        # A failed write may have ended amid a line; a newline keeps the next one whole.
        start = b"\n" if self._error is not None else b""
        return self._write_all(start + self._render(line))

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write what waits and stop. Idempotent.

        Args:
            timeout_s: Give up on a reader that does not read after this long.

        Returns:
            Whether every usage line was written.
        """
        if not self._is_closing.is_set():
            self._is_closing.set()
            self._lines.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and not self._has_lost_usage

    def _run(self) -> None:
        num_reported = 0
        for batch in self._batches():
            self._write_batch(batch)
            num_dropped = self._num_dropped
            if num_dropped > num_reported:
                report = self._render(_dropped_line(num_dropped - num_reported))
                if self._write_all(report):
                    num_reported = num_dropped
        os.close(self._fd)

    def _batches(self) -> Iterator[list[tuple[bytes, bool]]]:
        """What waits, as many lines at a time as one write may hold, until closed."""
        batch: list[tuple[bytes, bool]] = []
        size = 0
        while True:
            try:
                item = self._lines.get(block=not batch)
            except queue.Empty:
                yield batch
                batch, size = [], 0
                continue
            if item is None:
                break
            line, is_usage = item
            data = self._render(line)
            if batch and size + len(data) > _ATOMIC_BYTES:
                yield batch
                batch, size = [], 0
            batch.append((data, is_usage))
            size += len(data)
        if batch:
            yield batch

    def _write_batch(self, batch: list[tuple[bytes, bool]]) -> None:
        """Write lines in one piece; on failure keep trying with the usage lines only."""
        data = b"".join(line for line, _ in batch)
        if self._write_all(data):
            return
        with self._lock:
            self._num_dropped += sum(not is_usage for _, is_usage in batch)
        kept = b"".join(line for line, is_usage in batch if is_usage)
        while kept:
            is_last_try = self._is_closing.wait(self._retry_s)
            # The failed write may have ended amid a line; a newline keeps the next one whole.
            if self._write_all(b"\n" + kept):
                return
            if is_last_try:
                self._has_lost_usage = True
                return

    def _write_all(self, data: bytes) -> bool:
        view = memoryview(data)
        with self._writing:
            while view:
                try:
                    view = view[os.write(self._fd, view) :]
                except BlockingIOError:  # full, and somebody made the descriptor non-blocking
                    time.sleep(_FULL_PIPE_S)
                except OSError as error:
                    self._error = error.strerror or type(error).__name__
                    return False
            self._error = None
        return True


def _dropped_line(count: int) -> bytes:
    return encode_line(
        {
            "event": "log.dropped",
            "timestamp": format_timestamp(time.time()),
            "level": "warning",
            "count": count,
        }
    )

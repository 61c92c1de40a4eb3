"""`EncoderEngine`: an `Encoder` on a thread of its own, batching rows of all requests.

Requests take turns, row by row, so that one with a thousand texts does not make one with a single
text wait. What their turns brought together is sorted by length and cut into batches that pad
little; then the next turns begin.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread

import numpy as np
import numpy.typing as npt

from provider_core.encoders import Encoder, EncoderInfo, EncoderRow
from provider_core.engine.faults import as_backend_error
from provider_core.engines import call_on_loop
from provider_core.errors import DeadlineExceeded, EngineDead, ProviderError, StepFailed
from provider_core.interfaces import Clock, EngineLoad

MAX_CONSECUTIVE_FAILURES = 5
"""So many failed batches in a row, and the engine counts as dead."""

WINDOW_BATCHES = 4
"""Batches' worth of tokens that are sorted together: more pad less, and let newcomers wait."""

MIN_PADDED_LEN = 32
"""Padding up to so many tokens costs less than another call."""

Floats = npt.NDArray[np.float32]


@dataclass(slots=True, eq=False)
class _Job:
    """One request's rows.

    Attributes:
        waiting: Indices of rows that no batch holds yet, the longest last.
        num_left: Rows without a result.
    """

    rows: Sequence[EncoderRow]
    results: Floats
    waiting: list[int]
    num_left: int
    done: asyncio.Future[Floats]
    on_started: Callable[[float], None] | None
    num_waiting_tokens: int
    is_over: bool = False  # cancelled, failed or done: its rows are not computed any more


_Row = tuple[_Job, int]
"""A request and the index of one of its rows."""


@dataclass(slots=True)
class _Counters:
    """Written by the engine's thread only."""

    num_batches: int = 0
    num_tokens: int = 0
    busy_s: float = 0.0
    step_started_s: float | None = None
    num_failures: int = 0  # batches that failed since the last that did not


class EncoderEngine:
    """Batches any number of requests over one `Encoder`.

    All methods are called on the event loop's thread. The thread is not a daemon: call `close`.

    Args:
        encoder: Warmed up. The engine closes it.
        loop: Where results are delivered; the running loop by default.
        max_batch_tokens: Most tokens of a batch, padding included; a longer row runs alone.
        clock: For `EngineLoad.step_started_s` and deadlines.
        on_dead: Called once on the loop if the engine breaks, after every request got its error.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        max_batch_tokens: int = 4096,
        clock: Clock = time,
        on_dead: Callable[[EngineDead], None] | None = None,
    ) -> None:
        self._encoder = encoder
        self._info = encoder.info
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._max_batch_tokens = max_batch_tokens
        self._clock = clock
        self._on_dead = on_dead
        self._jobs: deque[_Job] = deque()  # with waiting rows, in the order of their turns
        self._changed = Condition()  # guards `_jobs`, what they wait for, and `_is_closing`
        self._open: set[_Job] = set()  # on the loop only
        self._counters = _Counters()
        self._death: EngineDead | None = None
        self._is_closing = False
        self._ended = asyncio.Event()
        self._thread = Thread(target=self._run, name="encoder")
        self._thread.start()

    @property
    def info(self) -> EncoderInfo:
        """Facts of the encoder underneath."""
        return self._info

    def load(self) -> EngineLoad:
        """How busy it is, now, in requests: those with rows that no batch holds are waiting."""
        counters = self._counters
        with self._changed:
            num_waiting = len(self._jobs)
            num_waiting_tokens = sum(job.num_waiting_tokens for job in self._jobs)
        return EngineLoad(
            num_running=max(len(self._open) - num_waiting, 0),
            num_waiting=num_waiting,
            num_waiting_prompt_tokens=num_waiting_tokens,
            num_slots=self._info.max_num_seqs,
            num_kv_tokens=0,
            num_steps=counters.num_batches,
            num_prompt_tokens=counters.num_tokens,
            num_generated_tokens=0,
            step_started_s=counters.step_started_s,
            prefill_s=counters.busy_s,
        )

    def check_health(self) -> None:
        """Return if it can serve.

        Raises:
            EngineDead: It is broken or closed.
        """
        if self._death is not None:
            raise EngineDead(self._death.message)
        if self._is_closing:
            raise EngineDead("the engine is closed")

    async def encode(
        self,
        rows: Sequence[EncoderRow],
        *,
        deadline_s: float | None = None,
        on_started: Callable[[float], None] | None = None,
    ) -> Floats:
        """Compute rows; cancelling the wait takes back what has not begun.

        Args:
            rows: At least one, each within the model's length and vocabulary.
            deadline_s: On the clock's `monotonic`.
            on_started: Told on the loop, maybe late, when the first batch with one of these rows
                began, on the clock's `monotonic`.

        Returns:
            float32 `[n, embedding_size]` in the order of the rows, or `[n]` for scores.

        Raises:
            EngineDead: The engine is closed or broken.
            StepFailed: A batch was lost.
            DeadlineExceeded: Not done in time.
        """
        self.check_health()
        width = () if self._info.task == "score" else (self._info.embedding_size,)
        job = _Job(
            rows=rows,
            results=np.empty((len(rows), *width), np.float32),
            waiting=sorted(range(len(rows)), key=lambda index: len(rows[index])),
            num_left=len(rows),
            done=self._loop.create_future(),
            on_started=on_started,
            num_waiting_tokens=sum(map(len, rows)),
        )
        patience_s = None if deadline_s is None else deadline_s - self._clock.monotonic()
        self._open.add(job)
        try:
            with self._changed:
                self._jobs.append(job)
                self._changed.notify()
            async with asyncio.timeout(patience_s):
                return await job.done
        except TimeoutError:
            raise DeadlineExceeded("the request's deadline passed before it ended") from None
        finally:
            self._open.remove(job)
            self._drop(job)

    async def close(self) -> None:
        """Fail everything, wait for the running batch, close the encoder. Idempotent."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        await self._ended.wait()
        self._thread.join()

    def _drop(self, job: _Job) -> None:
        with self._changed:
            job.is_over = True
            if job in self._jobs:
                self._jobs.remove(job)

    def _run(self) -> None:
        """The engine's thread, from start to end."""
        death: EngineDead | None = None
        try:
            while window := self._take_window():
                self._compute_window(window)
        except EngineDead as error:
            death = error
        except BaseException as error:  # noqa: BLE001 - whatever it was, nobody may wait forever
            death = EngineDead("the engine's own code failed")
            death.__cause__ = error
        try:
            self._encoder.close()
        finally:
            call_on_loop(self._loop, self._finish, death)

    def _take_window(self) -> list[_Row]:
        """Wait for rows, then let the requests take turns; longest first. Empty means close."""
        with self._changed:
            while not self._jobs and not self._is_closing:
                self._changed.wait()
            if self._is_closing:
                return []
            window: list[_Row] = []
            room = WINDOW_BATCHES * self._max_batch_tokens
            while self._jobs and room > 0:
                job = self._jobs.popleft()
                index = job.waiting.pop()
                num_tokens = len(job.rows[index])
                job.num_waiting_tokens -= num_tokens
                room -= num_tokens
                window.append((job, index))
                if job.waiting:
                    self._jobs.append(job)
        window.sort(key=lambda item: len(item[0].rows[item[1]]), reverse=True)
        return window

    def _compute_window(self, window: list[_Row]) -> None:
        batches = cut_batches(
            [len(job.rows[index]) for job, index in window],
            max_rows=self._info.max_num_seqs,
            max_tokens=self._max_batch_tokens,
        )
        for rows in batches:
            batch = [(job, index) for job, index in window[rows] if not job.is_over]
            if batch and not self._is_closing:
                self._compute(batch)

    def _compute(self, batch: list[_Row]) -> None:
        """Run one batch and give every request what it made for it."""
        counters = self._counters
        rows = [job.rows[index] for job, index in batch]
        started_s = counters.step_started_s = self._clock.monotonic()
        jobs = list(dict.fromkeys(job for job, _ in batch))
        for job in jobs:
            if job.on_started is not None:
                call_on_loop(self._loop, job.on_started, started_s)
                job.on_started = None
        try:
            values = self._encoder.encode(rows)
            _check_shape(values, (len(rows), *jobs[0].results.shape[1:]))
        except EngineDead as error:
            self._fail(jobs, error)
            raise
        except Exception as error:
            self._fail(jobs, as_backend_error(error))
            counters.num_failures += 1
            if counters.num_failures >= MAX_CONSECUTIVE_FAILURES:
                raise EngineDead(
                    f"{counters.num_failures} batches failed one after another"
                ) from error
            return
        finally:
            counters.num_batches += 1
            counters.num_tokens += sum(map(len, rows))
            counters.busy_s += self._clock.monotonic() - started_s
            counters.step_started_s = None
        counters.num_failures = 0
        is_finite = np.atleast_1d(np.isfinite(values.reshape(len(rows), -1)).all(axis=1))
        for (job, index), value, finite in zip(batch, values, is_finite, strict=True):
            if job.is_over:
                continue
            if not finite:
                self._fail([job], StepFailed("the model's output is not finite"))
                continue
            job.results[index] = value
            job.num_left -= 1
            if not job.num_left:
                call_on_loop(self._loop, _resolve, job.done, job.results)

    def _fail(self, jobs: Sequence[_Job], error: ProviderError) -> None:
        for job in jobs:
            self._drop(job)
            call_on_loop(self._loop, _reject, job.done, error)

    def _finish(self, death: EngineDead | None) -> None:
        """On the loop, last: answer those who wait, then tell the world."""
        self._is_closing = True
        self._death = death
        for job in self._open:
            _reject(job.done, death or EngineDead("the engine is closed"))
        self._ended.set()
        if death is not None and self._on_dead is not None:
            self._on_dead(death)


def cut_batches(lengths: Sequence[int], *, max_rows: int, max_tokens: int) -> list[slice]:
    """Cut rows into batches: few, and none that is mostly padding.

    Args:
        lengths: Tokens of each row, the longest first.
        max_rows: Of a batch.
        max_tokens: Of a batch, padding included; a longer row runs alone.

    Returns:
        Slices that follow each other and cover all rows.
    """
    batches = []
    start = 0
    while start < len(lengths):
        longest = lengths[start]
        stop = min(start + max(1, min(max_rows, max_tokens // longest)), len(lengths))
        least = longest // 2 if longest > MIN_PADDED_LEN else 0  # at most as much padding as text
        while lengths[stop - 1] < least:
            stop -= 1
        batches.append(slice(start, stop))
        start = stop
    return batches


def _check_shape(values: Floats, expected: tuple[int, ...]) -> None:
    """Raise `StepFailed` if an encoder's output is not float32 of the expected shape."""
    if values.shape != expected or values.dtype != np.float32:
        raise StepFailed(
            f"the encoder returned {values.dtype} of shape {values.shape}, not float32 {expected}"
        )


def _resolve(done: asyncio.Future[Floats], results: Floats) -> None:
    if not done.done():
        done.set_result(results)


def _reject(done: asyncio.Future[Floats], error: ProviderError) -> None:
    if not done.done():
        done.set_exception(error)

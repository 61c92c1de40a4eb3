"""Where the process stands between its first instruction and its last, observed by everybody.

`STARTING -> READY -> DRAINING -> STOPPED`, forward only; steps may be left out (a start that fails
goes straight to `STOPPED`). The reason says why, for people and for `/readyz`.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

from provider_core.interfaces import Clock


class State(IntEnum):
    """The states in their order."""

    STARTING = 0
    READY = 1
    DRAINING = 2
    STOPPED = 3


Observer = Callable[[State, str], None]
"""Called with the new state and the reason, on the thread that made the change."""


class Lifecycle:
    """The state of one server, the reason for it, and how long its start took.

    Args:
        clock: Real time unless a test says otherwise.
        started_s: When the process began, on the clock's monotonic scale; default: now.
    """

    def __init__(self, *, clock: Clock | None = None, started_s: float | None = None) -> None:
        self._monotonic = clock.monotonic if clock is not None else time.monotonic
        self.started_s = started_s if started_s is not None else self._monotonic()
        self._phases_s: dict[str, float] = {}
        self._start_s: float | None = None  # how long it took, once it is over
        self._observers: list[Observer] = []
        self.state = State.STARTING
        self.reason = "starting"
        self.is_lingering = False  # draining, and serving those who have not noticed yet

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.state is State.READY

    @property
    def is_serving(self) -> bool:
        """Whether requests that come are served; for a while longer than they should be sent."""
        return self.is_ready or self.is_lingering

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Call `observer` at each change; the returned function ends that."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def advance(self, state: State, reason: str) -> bool:
        """Go to a later state, or give the present one another reason.

        Returns:
            Whether anything changed; going back changes nothing, so that whoever comes second
            (two stop signals, a load that ends while draining) need not ask first.
        """
        if state < self.state or (state, reason) == (self.state, self.reason):
            return False
        self.state, self.reason = state, reason
        if state is State.READY and self._start_s is None:
            self._start_s = self.age_s
        for observer in tuple(self._observers):
            observer(state, reason)
        return True

    @property
    def age_s(self) -> float:
        """Seconds since the start."""
        return self._monotonic() - self.started_s

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a part of the start, `load` for instance; the same name twice adds up.

        What is loaded once the start is over is no part of it, and is not counted.
        """
        started_s = self._monotonic()
        try:
            yield
        finally:
            self.add_phase(name, self._monotonic() - started_s)

    def restart(self) -> None:
        """Begin anew to count: this is a copy of the process that began, made from a snapshot."""
        self.started_s = self._monotonic()
        self._phases_s.clear()

    def add_phase(self, name: str, duration_s: float) -> None:
        """Count time that was measured elsewhere, such as imports before this object existed."""
        if self._start_s is None:
            self._phases_s[name] = self._phases_s.get(name, 0.0) + duration_s

    def timings_ms(self) -> dict[str, float]:
        """What the start took, or has taken so far.

        Returns:
            Milliseconds by `<phase>_ms` in the order they ended, and `total_ms`.
        """
        total_s = self.age_s if self._start_s is None else self._start_s
        phases_s = {**self._phases_s, "total": total_s}
        return {f"{name}_ms": round(1e3 * duration_s, 1) for name, duration_s in phases_s.items()}


def process_started_s() -> float:
    """When this process began, on `time.monotonic`'s scale; now where the system does not tell.

    Linux gives it as field 22 of `/proc/self/stat` (proc_pid_stat(5)), in clock ticks since boot.
    """
    now_s = time.monotonic()
    try:
        after_name = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2]
        since_boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        ticks_per_s = os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return now_s
    started_s = int(after_name.split()[19]) / ticks_per_s
    return now_s - max(0.0, since_boot_s - started_s)

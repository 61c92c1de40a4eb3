"""What TensorRT tells while it builds: messages, and how far it is.

Its interfaces are classes of a module that is loaded late, so they are derived from in functions.
"""

import threading
from collections.abc import Callable
from typing import Any

import structlog

OnProgress = Callable[[float], object]
"""Called with the part that is done, from 0 to 1, never falling; maybe from another thread."""

log = structlog.get_logger()


class BuildProgress:
    """How far a build is, out of its phases.

    A phase has a number of steps and may lie within a step of another. Phases beside each other
    are not announced in advance: what has been reported is never taken back.

    Args:
        on_progress: Told the part that is done, where it has grown.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._phases: dict[str, tuple[str | None, int]] = {}  # parent and steps, by name
        self._done: dict[str, int] = {}
        self._reported = 0.0
        self._lock = threading.Lock()

    def start(self, phase: str, parent: str | None, num_steps: int) -> None:
        """A phase begins, maybe within another."""
        with self._lock:
            self._phases[phase] = (parent, max(1, num_steps))
            self._done[phase] = 0

    def complete(self, phase: str, step: int) -> None:
        """A step is done; they count from 0."""
        with self._lock:
            if phase in self._phases:
                self._done[phase] = max(self._done[phase], step + 1)
            self._report()

    def finish(self, phase: str) -> None:
        """A phase ends."""
        with self._lock:
            self._phases.pop(phase, None)
            self._done.pop(phase, None)

    def _report(self) -> None:
        roots = [phase for phase, (parent, _) in self._phases.items() if parent is None]
        part = max((self._part(root) for root in roots), default=0.0)
        if part > self._reported:
            self._reported = part
            self._on_progress(part)

    def _part(self, phase: str) -> float:
        """Of a phase, the running step counted by what runs within it."""
        _, num_steps = self._phases[phase]
        within = [self._part(name) for name, (parent, _) in self._phases.items() if parent == phase]
        return min(1.0, (self._done[phase] + max(within, default=0.0)) / num_steps)


def make_monitor(
    trt: Any,  # as `TensorRt.module`
    on_progress: OnProgress | None,
    cancelled: threading.Event,
) -> Any:  # trt.IProgressMonitor
    """What the builder tells its progress, and asks whether to go on."""
    progress = BuildProgress(on_progress or (lambda _: None))

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the module has no types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress.complete(phase_name, step)
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()


def make_log(trt: Any) -> Any:  # trt.ILogger, with `last_error`
    """A logger that writes errors as lines of ours, and remembers the last one."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the module has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, msg: str) -> None:
            if severity in {trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR}:
                self.last_error = msg
                log.error("tensorrt.error", message=msg)

    return Log()

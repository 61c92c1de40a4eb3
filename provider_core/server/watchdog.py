"""Ends a process whose engine hangs: crash-only, the platform starts another."""

import asyncio
import faulthandler
import sys
from collections.abc import Callable, Iterable
from time import monotonic

import structlog

from provider_core.server.models import Served

log = structlog.get_logger()

EXIT_ENGINE_HUNG = 70  # EX_SOFTWARE of sysexits.h


class Watchdog:
    """Looks at every engine's running step.

    Args:
        models: Says which engines to watch.
        limit_s: A step longer than this is a hang.
        on_hang: Settles what can be settled, then ends the process.
        interval_s: Between looks.
    """

    def __init__(
        self,
        models: Callable[[], Iterable[Served]],
        limit_s: float,
        on_hang: Callable[[Served], None],
        interval_s: float = 1.0,
    ) -> None:
        self._models = models
        self._limit_s = limit_s
        self._on_hang = on_hang
        self._interval_s = interval_s

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            self.look(monotonic())

    def look(self, now_s: float) -> None:
        """One look: report each engine whose step is over the limit."""
        for model in self._models():
            started = model.engine.load().step_started_s
            if started is not None and now_s - started > self._limit_s:
                log.critical("engine.hung", model=model.spec.id, step_s=round(now_s - started, 3))
                faulthandler.dump_traceback(sys.stderr)
                self._on_hang(model)

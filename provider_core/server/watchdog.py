"""Ends a process whose engine hangs or is dead: crash-only, the platform starts another."""

import asyncio
import faulthandler
import sys
from collections.abc import Callable, Iterable
from time import monotonic

import structlog

from provider_core.errors import EngineDead, Unavailable
from provider_core.server.models import Served

log = structlog.get_logger()

EXIT_ENGINE_HUNG = 70  # EX_SOFTWARE of sysexits.h


class Watchdog:
    """Looks at every engine's running step and health.

    Args:
        models: Says which engines to watch.
        limit_s: A step longer than this is a hang.
        on_hang: Settles what can be settled, then ends the process.
        interval_s: Between looks.
        listed: Those of them that nobody is about to close.
        on_dead: Ends the process, after an engine that cannot go on has ended its sequences.
    """

    def __init__(
        self,
        models: Callable[[], Iterable[Served]],
        limit_s: float,
        on_hang: Callable[[Served], None],
        interval_s: float = 1.0,
        *,
        listed: Callable[[], Iterable[Served]] = tuple,
        on_dead: Callable[[Exception], None] | None = None,
    ) -> None:
        self._models = models
        self._limit_s = limit_s
        self._on_hang = on_hang
        self._interval_s = interval_s
        self._listed = listed
        self._on_dead = on_dead

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            self.look(monotonic())

    def look(self, now_s: float) -> None:
        """One look: report each engine whose step is over the limit, and each that is dead."""
        for model in self._models():
            started = model.engine.load().step_started_s
            if started is not None and now_s - started > self._limit_s:
                log.critical("engine.hung", model=model.spec.id, step_s=round(now_s - started, 3))
                faulthandler.dump_traceback(sys.stderr)
                self._on_hang(model)
        for model in self._listed():
            try:
                model.engine.check_health()
            except EngineDead as error:
                if self._on_dead is not None:
                    self._on_dead(error)
            except Unavailable:  # it may serve again
                continue

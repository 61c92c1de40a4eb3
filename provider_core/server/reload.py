"""Models added, removed and changed while serving: on SIGHUP or when the file changes."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from provider_core.catalog import diff
from provider_core.errors import ProviderError
from provider_core.server.models import Models
from provider_core.types import ModelSpec

log = structlog.get_logger()

_POLL_S = 2.0


class Reloader:
    """Follows the configuration file.

    A file that cannot be read, or a model that cannot be loaded, is logged and changes nothing:
    what is served goes on being served.

    Args:
        models: What is served.
        read_specs: Reads the configuration anew and says what should be served.
        path: The file to watch; `None` leaves only SIGHUP.
    """

    def __init__(
        self, models: Models, read_specs: Callable[[], list[ModelSpec]], path: Path | None
    ) -> None:
        self._models = models
        self._read_specs = read_specs
        self._path = path
        self._wake = asyncio.Event()
        self._configured = list(read_specs())

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Follow the file for as long as the context is open."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._wake.set)
        tasks = [asyncio.create_task(self._follow())]
        if self._path is not None:
            tasks.append(asyncio.create_task(self._poll(self._path)))
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def reload(self) -> None:
        """Read the configuration and make it so. Running requests of a removed model end first."""
        try:
            wanted = self._read_specs()
        except ProviderError as exc:
            log.error("config.refused", error=exc.message)  # noqa: TRY400 - a message, no bug
            return
        changes = diff(self._configured, wanted)
        self._configured = wanted
        for spec in changes.removed:
            await self._models.remove(spec.id)
        for spec in changes.changed:
            await self._change(spec)
        for spec in changes.added:
            await self._add(spec)
        log.info(
            "config.reloaded",
            added=[spec.id for spec in changes.added],
            removed=[spec.id for spec in changes.removed],
            changed=[spec.id for spec in changes.changed],
        )

    async def _add(self, spec: ModelSpec) -> None:
        try:
            await self._models.load(spec)
        except ProviderError as exc:
            log.error("model.failed", model=spec.id, error=exc.message)  # noqa: TRY400

    async def _change(self, spec: ModelSpec) -> None:
        try:
            self._models.update(spec)
        except ProviderError as exc:
            log.error("model.failed", model=spec.id, error=exc.message)  # noqa: TRY400

    async def _follow(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.reload()

    async def _poll(self, path: Path) -> None:
        seen = _mtime(path)
        while True:
            await asyncio.sleep(_POLL_S)
            now = _mtime(path)
            if now != seen:
                seen = now
                self._wake.set()


def _mtime(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0

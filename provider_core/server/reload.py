"""Models added, removed and changed while serving: on a signal or when the file changes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from provider_core.catalog import diff, specs_from_settings
from provider_core.errors import ProviderError
from provider_core.plugins import PluginManager
from provider_core.server.models import Models
from provider_core.settings import Settings
from provider_core.types import ModelSpec

log = structlog.get_logger()

_POLL_S = 2.0


class ConfigurationFile:
    """What the file asks to serve, read anew each time; what else was said at the start stays.

    Args:
        settings: Of this process.
        read_settings: Reads them as they were read at the start, the file as it is now.
        plugins: Asked for models if nobody names one.
    """

    def __init__(
        self, settings: Settings, read_settings: Callable[[], Settings], plugins: PluginManager
    ) -> None:
        self._settings = settings
        self._read_settings = read_settings
        self._plugins = plugins

    def read_specs(self) -> list[ModelSpec]:
        """Read the file; log which of its settings differ from those that the process runs with.

        Raises:
            ConfigurationError: The file is invalid.
        """
        fresh = self._read_settings()
        if names := sorted(_differences(_needing_restart(self._settings), _needing_restart(fresh))):
            log.warning("config.restart_needed", settings=names)
        wanted = self._settings.model_copy(update={"models": fresh.models})
        return specs_from_settings(wanted, self._plugins)


def _needing_restart(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(exclude={"models"})


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], table: str = "") -> Iterator[str]:
    """Names of the settings whose values differ, dotted."""
    for name in old.keys() | new.keys():
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{table}{name}.")
        elif before != after:
            yield f"{table}{name}"


class Reloader:
    """Follows the configuration.

    A file that cannot be read, or a model that cannot be fetched, is logged and takes nothing away
    that is served. Two models of one name may not fit into memory side by side: the new one is
    loaded when the old one has gone, and if that fails, the old one is loaded again. The new one
    is then not tried again before its table changes.

    Args:
        models: What is served; loaded as configured.
        read_specs: Reads the configuration anew and says what should be served.
        path: The file to watch; `None` leaves only `wake`.
        wake: Set by whoever wants a reload now.
        served: As configured, what is served already.
    """

    def __init__(
        self,
        models: Models,
        read_specs: Callable[[], list[ModelSpec]],
        path: Path | None,
        wake: asyncio.Event,
        served: Sequence[ModelSpec],
    ) -> None:
        self._models = models
        self._read_specs = read_specs
        self._path = path
        self._wake = wake
        self._served = {spec.id: spec for spec in served}  # what works
        self._refused: dict[str, ModelSpec] = {}  # as configured, in whose place others serve

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Follow the configuration, what has changed meanwhile too, while the context is open."""
        seen = _stamp(self._path)  # before it is read: what is written meanwhile is younger
        with _logged("config.refused") as reading:
            wanted = self._read_specs()
        if not reading.failed and wanted != list(self._served.values()):
            self._wake.set()
        tasks = [asyncio.create_task(self._follow())]
        if self._path is not None:
            tasks.append(asyncio.create_task(self._poll(self._path, seen)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def reload(self) -> None:
        """Read the configuration and make it so; whatever does not work is left as it was."""
        with _logged("config.refused") as reading:
            wanted = self._read_specs()
        if reading.failed:
            return
        self._refused = {spec.id: spec for spec in wanted if self._refused.get(spec.id) == spec}
        served = [self._served[spec.id] if spec.id in self._refused else spec for spec in wanted]
        changes = diff(list(self._served.values()), served)
        added = {spec.id: spec for spec in changes.added}
        removed = [spec.id for spec in changes.removed if spec.id not in added]
        changed = [spec.id for spec in changes.changed if self._update(spec)]  # waits for nobody
        for model_id in removed:
            await self._remove(model_id)
        loaded = [spec.id for spec in added.values() if await self._replace(spec)]
        log.info(
            "config.reloaded",
            added=loaded,
            removed=removed,
            changed=changed,
            refused=list(self._refused),
        )

    async def _replace(self, spec: ModelSpec) -> bool:
        """Load a model, in the place of one of the same name if there is one."""
        before = self._served.get(spec.id)
        with _logged("model.failed", model=spec.id) as checking:
            await self._models.fetch(spec)  # what can be refused is, before anything goes
        if checking.failed:
            return False
        if before is not None:
            await self._remove(spec.id)
        if await self._load(spec):
            return True
        if before is not None and await self._load(before):
            self._refused[spec.id] = spec
        return False

    async def _load(self, spec: ModelSpec) -> bool:
        with _logged("model.failed", model=spec.id) as loading:
            await self._models.load(spec)
            self._served[spec.id] = spec
        return not loading.failed

    async def _remove(self, model_id: str) -> None:
        self._served.pop(model_id, None)
        await self._models.remove(model_id)

    def _update(self, spec: ModelSpec) -> bool:
        with _logged("model.failed", model=spec.id) as updating:
            self._models.update(spec)
            self._served[spec.id] = spec
        return not updating.failed

    async def _follow(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.reload()

    async def _poll(self, path: Path, seen: int) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            now = _stamp(path)
            if now != seen:
                seen = now
                self._wake.set()


@dataclass(slots=True)
class _Attempt:
    failed: bool = False


@contextmanager
def _logged(event: str, **fields: str) -> Iterator[_Attempt]:
    """Log what goes wrong inside and go on; a plugin's own failure with its traceback."""
    attempt = _Attempt()
    try:
        yield attempt
    except ProviderError as exc:
        attempt.failed = True
        log.error(event, error=exc.message, **fields)  # noqa: TRY400 - the message says it all
    except Exception:
        attempt.failed = True
        log.exception(event, **fields)


def _stamp(path: Path | None) -> int:
    try:
        return 0 if path is None else path.stat().st_mtime_ns
    except OSError:
        return 0

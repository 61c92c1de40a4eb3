"""Backends on their way, each in a thread of its own.

A process imports little before this: while the first model's runtime reads its weights, for which
it needs no interpreter lock, the main thread imports the server.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import structlog

from provider_core import hookspecs
from provider_core.catalog import complete_spec, diff
from provider_core.encoders import Encoder
from provider_core.errors import ConfigurationError, PluginError, ProviderError
from provider_core.interfaces import Engine, ModelRunner
from provider_core.lifecycle import Lifecycle, State
from provider_core.plugins import PluginManager
from provider_core.settings import Settings
from provider_core.sources.progress import LoggedProgress, percent
from provider_core.types import ModelSpec

log = structlog.get_logger()

Backend = ModelRunner | Engine | Encoder
"""What `load_model` gives, in whichever socket it fits."""


@dataclass(frozen=True, slots=True)
class Loading:
    """A model that is being loaded.

    Attributes:
        spec: As configured.
        fetched: The spec with every limit filled in, and the folder, in which all is but maybe the
            weights; or why they cannot be had.
        backend: What the plugins made of them, warm; or why it cannot be had.
    """

    spec: ModelSpec
    fetched: Future[tuple[ModelSpec, Path]] = field(default_factory=Future)
    backend: Future[Backend] = field(default_factory=Future)

    def discard(self) -> None:
        """Close the backend, now or once it is there; on a thread that runs no event loop."""
        self.backend.add_done_callback(_close)


class _FetchProgress:
    """Hears how far a model's files have come, for probes, the log and whoever waits.

    Args:
        model_id: The model's.
        lifecycle: Of the process.
        on_small_files: Called with the folder once all is in it but the weights.
    """

    def __init__(
        self, model_id: str, lifecycle: Lifecycle, on_small_files: Callable[[Path], None]
    ) -> None:
        self._model_id = model_id
        self._lifecycle = lifecycle
        self._log = LoggedProgress(model=model_id)
        self._percent: int | None = None
        self.small_files_ready = on_small_files

    def advance(self, num_bytes: int, total_bytes: int) -> None:
        """Say it where it can be asked."""
        share = percent(num_bytes, total_bytes)
        if share != self._percent:
            self._percent = share
            reason = f"fetching model {self._model_id}, {share} %"
            self._lifecycle.advance(State.STARTING, reason)
        self._log.advance(num_bytes, total_bytes)


class BackendLoader:
    """Fetches and loads models by hooks.

    Args:
        plugins: Asked to fetch and load.
        settings: The cache's folder.
        lifecycle: Times the phases of loading.
    """

    def __init__(self, plugins: PluginManager, settings: Settings, lifecycle: Lifecycle) -> None:
        self._plugins = plugins
        self._settings = settings
        self._lifecycle = lifecycle
        self._begun: list[Loading] = []  # and not asked for yet
        self._threads: list[Thread] = []

    @property
    def is_busy(self) -> bool:
        """Whether a thread is at work; it cannot be stopped."""
        return any(thread.is_alive() for thread in self._threads)

    def begin(self, spec: ModelSpec) -> None:
        """Start to load a model that will be asked for."""
        self._begun.append(self._start(spec))

    def wait(self) -> None:
        """Wait for everything that was begun.

        Raises:
            ProviderError: A model cannot be loaded.
        """
        for loading in self._begun:
            loading.backend.result()

    def revise(self, settings: Settings, specs: Sequence[ModelSpec]) -> None:
        """Go by a configuration that is younger than what was begun, and waited for.

        What is loaded is kept for the models that need nothing else loaded, with their facts of
        now; the rest is closed. No event loop runs yet.

        Raises:
            ConfigurationError: A limit does not fit a model's folder.
        """
        self._settings = settings
        changes = diff([loading.spec for loading in self._begun], specs)
        gone = {spec.id for spec in changes.removed}
        changed = {spec.id: spec for spec in changes.changed}
        begun, self._begun = self._begun, []
        for loading in begun:
            if loading.spec.id in gone:
                loading.discard()
            else:
                spec = changed.get(loading.spec.id, loading.spec)
                self._begun.append(_with_facts(loading, spec))

    def load(self, spec: ModelSpec) -> Loading:
        """Load a model, or take up what was begun."""
        for loading in self._begun:
            if loading.spec == spec:
                self._begun.remove(loading)
                return loading
        return self._start(spec)

    def fetch(self, spec: ModelSpec) -> tuple[ModelSpec, Path]:
        """Bring a model's folder here and check what can be checked without loading it.

        Returns:
            The spec with every limit filled in, and the folder.

        Raises:
            ConfigurationError: The source cannot be had, or its limits do not fit.
        """
        return self._fetch(spec, lambda _: None)

    def _fetch(
        self, spec: ModelSpec, on_small_files: Callable[[Path], None]
    ) -> tuple[ModelSpec, Path]:
        progress = _FetchProgress(spec.id, self._lifecycle, on_small_files)
        with self._phase("fetch", spec):
            model_dir = self._plugins.first(
                hookspecs.fetch_model,
                uri=spec.source,
                cache_dir=self._settings.data_dir / "models",
                progress=progress,
            )
        if model_dir is None:
            raise ConfigurationError(f"no plugin can fetch model source {spec.source!r}")
        self._lifecycle.advance(State.STARTING, f"loading model {spec.id}")
        return complete_spec(spec, model_dir), model_dir

    def _start(self, spec: ModelSpec) -> Loading:
        loading = Loading(spec)
        for future in (loading.fetched, loading.backend):
            future.set_running_or_notify_cancel()  # who waits may go; the thread cannot be stopped
        # A daemon: a process that is told to stop does not wait for gigabytes.
        thread = Thread(target=self._run, args=(loading,), name=f"load-{spec.id}", daemon=True)
        self._threads = [*filter(Thread.is_alive, self._threads), thread]
        thread.start()
        return loading

    def _run(self, loading: Loading) -> None:
        def on_small_files(folder: Path) -> None:
            loading.fetched.set_result((complete_spec(loading.spec, folder), folder))

        try:
            spec, model_dir = self._fetch(loading.spec, on_small_files)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            if not loading.fetched.done():
                loading.fetched.set_exception(error)
            loading.backend.set_exception(error)
            return
        if not loading.fetched.done():
            loading.fetched.set_result((spec, model_dir))
        try:
            loading.backend.set_result(self._load(spec, model_dir))
        except BaseException as error:  # noqa: BLE001 - as above
            loading.backend.set_exception(error)

    def _report(self, text: str) -> None:
        """Let `/readyz` say what the start waits for; once it is over, nothing waits."""
        self._lifecycle.advance(State.STARTING, text)

    @contextmanager
    def _phase(self, name: str, spec: ModelSpec) -> Iterator[None]:
        """Time a phase, in which a plugin and its runtime may raise whatever they like.

        Raises:
            PluginError: They did; one line, and the traceback is in the log.
        """
        try:
            with self._lifecycle.phase(name):
                yield
        except ProviderError:
            raise
        except Exception as error:
            log.exception("plugin.raised", model=spec.id, phase=name)
            by = f" of backend {spec.backend}" if spec.backend else ""
            reason = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
            raise PluginError(f"model {spec.id!r}{by}: {name} failed: {reason}") from error

    def _load(self, spec: ModelSpec, model_dir: Path) -> Backend:
        """Ask the plugins, and run what the first request must not pay for.

        Raises:
            PluginError: No plugin loads it, or the one that does fails.
        """
        with self._phase("backend", spec):
            backend = self._plugins.first(
                hookspecs.load_model,
                model=spec,
                model_dir=model_dir,
                report=lambda text: self._report(f"model {spec.id}: {text}"),
            )
        if backend is None:
            asked = f" by backend {spec.backend!r}" if spec.backend else ""
            names = ", ".join(info.name for info in self._plugins.describe())
            raise PluginError(
                f"no plugin loads the model {spec.id!r} of {spec.source!r}{asked}; asked: {names}"
            )
        if isinstance(backend, ModelRunner | Encoder):
            try:
                with self._phase("warm_up", spec):
                    backend.warm_up()
            except BaseException:
                backend.close()
                raise
        return backend


def _close(loaded: Future[Backend]) -> None:
    if loaded.exception() is not None:
        return
    backend = loaded.result()
    if isinstance(backend, Engine):
        asyncio.run(backend.close())
    else:
        backend.close()


def _with_facts(loading: Loading, spec: ModelSpec) -> Loading:
    """The same model, loaded, with other prices or names."""
    _, model_dir = loading.fetched.result()
    revised = Loading(spec, backend=loading.backend)
    revised.fetched.set_result((complete_spec(spec, model_dir), model_dir))
    return revised

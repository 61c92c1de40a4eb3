"""The process: opens its socket, loads its models, serves, drains, ends."""

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import get_args

import structlog
from aiohttp import web

import provider_core
from provider_core import hookspecs
from provider_core.access.keys import KeyStore
from provider_core.billing.events import Endpoint, ProcessFacts
from provider_core.billing.identifiers import make_ulid
from provider_core.billing.journal import Disk, UsageJournal
from provider_core.billing.journal.unread import unread_events
from provider_core.billing.ledger import UsageLedger
from provider_core.billing.settlement import Ledger
from provider_core.catalog import specs_from_settings
from provider_core.errors import ConfigurationError, EngineDead, ProviderError, Unavailable
from provider_core.interfaces import UsageWriter
from provider_core.lifecycle import Lifecycle, State
from provider_core.observability.metrics import Metrics
from provider_core.plugins import PluginManager
from provider_core.server import response_cache
from provider_core.server.anthropic_routes import AnthropicRoutes
from provider_core.server.auth import Authenticator
from provider_core.server.connection import connection_factory
from provider_core.server.dispatch import Dispatcher
from provider_core.server.edge import Edge
from provider_core.server.encoder_routes import EncoderRoutes
from provider_core.server.google_routes import GoogleRoutes
from provider_core.server.health import Health
from provider_core.server.in_process import IN_PROCESS, InProcess
from provider_core.server.key_routes import KeyRoutes
from provider_core.server.listeners import Listeners, listen
from provider_core.server.loading import BackendLoader
from provider_core.server.model_pages import ModelPages
from provider_core.server.models import Models, Served
from provider_core.server.openapi import OpenApiRoute
from provider_core.server.openrouter_routes import OpenRouterRoutes
from provider_core.server.ops import Ops
from provider_core.server.pipeline import Pipeline
from provider_core.server.responses_routes import ResponsesRoutes
from provider_core.server.routes import OpenAIRoutes
from provider_core.server.stores import open_credit_ledger, open_limit_store
from provider_core.server.watchdog import EXIT_ENGINE_HUNG, Watchdog
from provider_core.settings import Settings
from provider_core.types import ModelSpec

log = structlog.get_logger()

ExitNow = Callable[[int], None]

EXIT_WORKER_FAILED = 71  # beside `EXIT_ENGINE_HUNG`: sysexits.h's EX_OSERR

_DRAIN_POLL_S = 0.02
_PROGRESS_S = 10.0  # between notes of how far generations have come
_FLUSH_S = 3.0  # kept of the grace for settling, logging and closing
_LAST_BYTES_S = _FLUSH_S / 4  # of it, for clients to read the end; aiohttp waits for it twice


class Server:
    """One server: everything it is made of, wired.

    Args:
        settings: All of them.
        plugins: With the core's defaults registered.
        sink: Takes the usage lines.
        lifecycle: Shared with whoever watches.
        exit_now: Ends the process at once, for an engine that hangs.
        num_dropped_lines: Log lines dropped so far, for the metrics.
        num_warnings: Log lines at `warning` and above so far by event, for the metrics.
        disk: The operating system under the journal.
        loader: Loads the backends, and has maybe begun to.
        keys: Those that can be managed over HTTP; closed with the server.
        listeners: Its sockets, which are maybe open.
    """

    def __init__(
        self,
        settings: Settings,
        plugins: PluginManager,
        sink: UsageWriter,
        lifecycle: Lifecycle,
        exit_now: ExitNow = sys.exit,
        num_dropped_lines: Callable[[], int] = lambda: 0,
        num_warnings: Callable[[], Mapping[str, int]] = dict,
        disk: Disk | None = None,
        loader: BackendLoader | None = None,
        keys: KeyStore | None = None,
        listeners: Listeners | None = None,
    ) -> None:
        self.settings = settings
        self.plugins = plugins
        self.lifecycle = lifecycle
        self.models = Models(plugins, settings, lifecycle, self._engine_died, loader)
        self.metrics = Metrics(
            lambda: {model.spec.id: model.engine for model in self.models},
            num_dropped_lines,
            lambda: {} if self.journal is None else self.journal.figures(),
            lambda: self.dispatcher.quotas.is_sharing,
            num_warnings,
            get_args(Endpoint),
        )
        process = _process_facts(settings)
        journal_dir = settings.journal.dir or settings.data_dir / "journal"
        self.journal = (
            UsageJournal(journal_dir, settings.journal, process, sink, disk=disk)
            if settings.journal.enabled
            else None
        )
        self.usage_ledger = (
            UsageLedger(
                settings.data_dir / "ledger.sqlite",
                retention_days=settings.ledger.retention_days,
                journal_dir=journal_dir if settings.journal.enabled else None,
                boot_id=process.boot_id,
            )
            if settings.ledger.enabled
            else None
        )
        self.credits = open_credit_ledger(settings, plugins)
        self._unread = partial(unread_events, journal_dir, but_boot=process.boot_id)
        self.ledger = Ledger(
            sink,
            time,
            process,
            self.metrics.observe,
            self.journal,
            on_event=self._record,
            logs_open=settings.journal.log_open,
        )
        self.dispatcher = Dispatcher(
            settings=settings,
            plugins=plugins,
            models=self.models,
            ledger=self.ledger,
            lifecycle=lifecycle,
            journal=self.journal,
            limit_store=open_limit_store(settings, plugins),
            credit_ledger=self.credits,
        )
        self.keys = keys
        self.in_process = InProcess(
            settings,
            lifecycle,
            api_key=keys.internal_secret if keys is not None and settings.api_key else None,
            specs=lambda: self.models.specs,
            num_unlogged=self._num_unlogged,
            on_failure=self._worker_failed,
        )
        self._exit_now = exit_now
        self.exit_code = 0
        self.stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._listeners = listeners or Listeners(settings)
        self._runner: web.AppRunner | None = None
        self._ops_runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def make_app(self) -> web.Application:
        """The aiohttp application with every route and plugin's additions."""
        app = web.Application(handler_args={"access_log": None})
        app[IN_PROCESS] = self.in_process
        Edge(self.settings, self.metrics.count_response).install(app)
        self.dispatcher.quotas.install(app)
        app.on_response_prepare.append(response_cache.add_headers)
        ops = Ops(self.settings, self.metrics)
        if self.settings.server.ops_port is None:
            ops.add_routes(app)
        app.on_response_prepare.append(self._close_when_draining)
        Health(self.lifecycle, self.models, self.journal, self.settings.probes).add_routes(app)
        pipeline = Pipeline(self.dispatcher, Authenticator(self.settings, self.plugins))
        app.on_cleanup.append(pipeline.close)
        OpenRouterRoutes(pipeline, self.usage_ledger, self.credits).add_routes(app)
        if self.keys is not None:
            KeyRoutes(pipeline, self.keys, self.usage_ledger, self.credits).add_routes(app)
        OpenAIRoutes(pipeline).add_routes(app)
        ResponsesRoutes(pipeline).add_routes(app)
        EncoderRoutes(pipeline).add_routes(app)
        AnthropicRoutes(pipeline).add_routes(app)
        GoogleRoutes(pipeline).add_routes(app)
        ModelPages(pipeline).add_routes(app)
        OpenApiRoute(self.settings).add_routes(app)
        self.plugins.every(hookspecs.setup_app, app=app)
        return app

    async def open(self) -> int:
        """Bind and answer probes; models come later. Returns the bound port.

        Raises:
            ConfigurationError: The journal cannot be kept, or the address not be bound.
        """
        self._loop = loop = asyncio.get_running_loop()
        if self.journal is not None:
            with self.lifecycle.phase("journal"):
                await asyncio.to_thread(self.journal.start, self.ledger.totals)
        if self.usage_ledger is not None:
            self.usage_ledger.start()
        if self.journal is not None:
            self.credits.start(self._unread)
        runner = web.AppRunner(
            self.make_app(), handler_cancellation=True, shutdown_timeout=_LAST_BYTES_S
        )
        await runner.setup()
        self._runner = runner
        server = runner.server
        if server is None:
            raise ConfigurationError("the server has no protocol factory")
        factory = connection_factory(server, self.settings.limits, loop)
        port = self._listeners.open()
        await self._listeners.serve(factory)
        await self.in_process.open(factory)
        if self.settings.server.ops_port is not None:
            self._ops_runner = web.AppRunner(
                Ops(self.settings, self.metrics).ops_app(), shutdown_timeout=_LAST_BYTES_S
            )
            await self._ops_runner.setup()
            ops_socket = listen("127.0.0.1", self.settings.server.ops_port)
            await web.SockSite(self._ops_runner, ops_socket).start()
        return port

    async def load(self, specs: Sequence[ModelSpec] | None = None) -> None:
        """Load models, then be ready.

        Args:
            specs: Which; by default those that the settings name.

        Raises:
            ProviderError: A model cannot be loaded; nothing is served.
        """
        for spec in specs or specs_from_settings(self.settings, self.plugins):
            try:
                await self.models.load(spec)
            except ProviderError as error:
                self.lifecycle.advance(State.STARTING, error.message)
                raise
        watchdog = Watchdog(
            lambda: self.models.in_memory,
            self.settings.server.watchdog_s,
            self._engine_hung,
            listed=lambda: self.models,
            on_dead=self._engine_died,
        )
        self._tasks.append(asyncio.create_task(watchdog.run()))
        if self.journal is not None:
            self._tasks.append(asyncio.create_task(self._note_progress(self.journal)))
        self.lifecycle.advance(State.READY, "ready")
        log.info(
            "server.ready",
            models=[spec.id for spec in self.models.specs],
            **self.lifecycle.timings_ms(),
        )
        grammars = self.dispatcher.planner.grammars
        self._tasks.append(asyncio.create_task(grammars.follow(self.models)))

    def stop(self) -> None:
        """Ask the server to drain and end, as a signal does; the second time, to do so at once."""
        if self.stopping.is_set():
            self._hurry.set()
        self.stopping.set()

    async def drain(self) -> None:
        """Let the running work end within the grace, cut the rest.

        From now on probes say that no more should come. New requests are served for another
        `drain_delay_s`, in which whoever sends them notices; then they are refused. What a worker
        has taken from its platform is served like work that runs.
        """
        stop = self.settings.server
        deadline = time.monotonic() + stop.grace_s - _FLUSH_S
        self.lifecycle.is_lingering = True
        self.lifecycle.advance(State.DRAINING, "draining")
        log.info("server.draining", running=len(self.dispatcher.runs), grace_s=stop.grace_s)
        left_s = deadline - time.monotonic()
        await asyncio.gather(
            self.in_process.stop(left_s, self._hurry),
            self._linger(min(stop.drain_delay_s, left_s)),
        )
        while self._is_busy() and time.monotonic() < deadline and not self._hurry.is_set():  # noqa: ASYNC110 - once in a life
            await asyncio.sleep(_DRAIN_POLL_S)
        for run in list(self.dispatcher.runs):
            run.cut(Unavailable("the server is shutting down", code="draining", retry_after_s=1))
        await self.close()

    def _is_busy(self) -> bool:
        """Whether something runs, or an answer waits for its client to read it."""
        server = None if self._runner is None else self._runner.server
        connections = () if server is None else server.connections
        return bool(self.dispatcher.runs) or any(each.writing_paused for each in connections)

    async def _linger(self, delay_s: float) -> None:
        """Let requests in for a while, then close the port."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), delay_s)
        self.lifecycle.is_lingering = False
        await self._listeners.close()

    async def close(self) -> None:
        """End everything, in `_FLUSH_S` unless something hangs; idempotent."""
        until_s = time.monotonic() + _FLUSH_S
        while self._tasks:
            task = self._tasks.pop()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._listeners.close()
        await self.in_process.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.dispatcher.planner.grammars.close()  # no request is left that could ask
        if self._ops_runner is not None:
            await self._ops_runner.cleanup()
            self._ops_runner = None
        if self.journal is not None:  # every run is settled by now
            await asyncio.to_thread(self.journal.close, _FLUSH_S / 2)
        if self.usage_ledger is not None:
            has_all = self.journal is None or self.journal.has_decided_all
            await asyncio.to_thread(self.usage_ledger.close, has_all=has_all)
        await self.credits.close()
        await self.dispatcher.quotas.close()
        if self.keys is not None:
            await asyncio.to_thread(self.keys.close)
        try:
            async with asyncio.timeout(max(until_s - time.monotonic(), _LAST_BYTES_S)):
                await self.models.close()
        except TimeoutError:  # a step that does not return, and the watchdog is gone already
            log.critical("engine.hung")
            self._exit_now(EXIT_ENGINE_HUNG)
        if self.lifecycle.advance(State.STOPPED, "stopped"):
            log.info("server.stopped", exit_code=self.exit_code)

    async def _close_when_draining(self, _: web.Request, response: web.StreamResponse) -> None:
        """Send clients that keep connections to another replica with their next request."""
        if self.lifecycle.state >= State.DRAINING:
            response.headers["Connection"] = "close"
            response.force_close()

    def _record(self, event: Mapping[str, object]) -> None:
        """Give a usage event to whoever counts them, before its answer ends; on any thread."""
        with suppress(RuntimeError):  # the loop has ended; the next start reads the journal
            if self.usage_ledger is not None:
                self._loop.call_soon_threadsafe(self.usage_ledger.record, event)
            self._loop.call_soon_threadsafe(self.credits.record, event)

    async def _note_progress(self, journal: UsageJournal) -> None:
        """Let the journal know of long generations, so that a crash does not hide what they did."""
        while True:
            known = {run.generation_id for run in self.dispatcher.runs}
            await asyncio.sleep(_PROGRESS_S)
            for run in self.dispatcher.runs:
                if run.generation_id in known:
                    journal.progressed(run.generation_id, run.usage)

    def _num_unlogged(self) -> float:
        """Usage lines that the journal has and the log has not."""
        return 0 if self.journal is None else self.journal.figures()["unemitted_events"]

    def _worker_failed(self, cause: BaseException | None) -> None:
        """Nobody takes the platform's work any more: end, so that it starts another process."""
        log.critical("worker.failed", exc_info=cause)
        if not self.stopping.is_set():
            self.exit_code = EXIT_WORKER_FAILED
            self.stop()

    def _engine_died(self, cause: Exception) -> None:
        """An engine cannot go on: its sequences have ended with errors; end the process."""
        if self.exit_code == EXIT_ENGINE_HUNG:  # it ends already
            return
        log.critical("engine.dead", exc_info=cause)
        self.exit_code = EXIT_ENGINE_HUNG
        self.stop()

    def _engine_hung(self, model: Served) -> None:
        """An engine's step does not return: settle what runs on it and end without it."""
        error = EngineDead(f"the engine of `{model.spec.id}` does not answer")
        for run in list(self.dispatcher.runs):
            run.settle(error)
        if self.journal is not None:
            self.journal.close(_FLUSH_S / 2)
        self._exit_now(EXIT_ENGINE_HUNG)


def _process_facts(settings: Settings) -> ProcessFacts:
    return ProcessFacts(
        boot_id=make_ulid(),
        service_version=provider_core.__version__,
        instance_id=socket.gethostname()[:64],
        platform=settings.platform,
        region=settings.server.region,
        country=settings.server.country,
    )

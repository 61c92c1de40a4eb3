"""The way into the application for platforms that hand out work instead of calling.

Such a platform, a queue or a function's runtime, is served by a *worker*: a coroutine that a plugin
gives to `InProcess.work` in `setup_app`. It takes work, sends it as a request over a Unix-domain
socket that only this user can reach, and turns the answer back. So who may do what, what it costs
and how it ends is decided where it is for every other client; a worker that closes its connection
has left, as any client has.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import aiohttp
from aiohttp import web

from provider_core.errors import ConfigurationError, Unavailable
from provider_core.lifecycle import Lifecycle, State
from provider_core.settings import Settings
from provider_core.types import ModelSpec

Worker = Callable[["InProcess"], Awaitable[None]]
"""Takes work until `stopping` is set; returns when all that it took is answered."""

_LAST_WORDS_S = 1.0  # for a worker to tell its platform of what was cut
_POLL_S = 0.005


class InProcess:
    """What such a plugin knows of the server; the socket is opened only if one asks for it.

    Args:
        settings: All of them.
        lifecycle: Of the process.
        api_key: What handlers present for work that brings no key.
        specs: Of the models that are served now.
        num_unlogged: Usage lines that are not in the log yet.
        on_failure: Told why a worker ended that nobody asked to.

    Attributes:
        api_key: Stands for `PROVIDER_API_KEY`, whatever that is and becomes; `None` if it is unset.
        stopping: Set when no further work is to be taken.
        socket_path: For `open_session`, in this process or a child; empty until there is one.
    """

    def __init__(
        self,
        settings: Settings,
        lifecycle: Lifecycle,
        *,
        api_key: str | None = None,
        specs: Callable[[], Sequence[ModelSpec]] = tuple,
        num_unlogged: Callable[[], float] = lambda: 0,
        on_failure: Callable[[BaseException | None], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.lifecycle = lifecycle
        self.api_key = api_key
        self.stopping = asyncio.Event()
        self.socket_path = ""
        self._specs = specs
        self._num_unlogged = num_unlogged
        self._on_failure = on_failure
        self._is_enabled = False
        self._worker: Worker | None = None
        self._task: asyncio.Future[None] | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self._listener: asyncio.Server | None = None
        self._has_started = asyncio.Event()
        self._is_finishing = False  # the worker answers what it took before the stop
        lifecycle.observe(self._see)

    @property
    def specs(self) -> Sequence[ModelSpec]:
        """Of the models that are served now; none before they are loaded."""
        return self._specs()

    def enable(self) -> None:
        """Have the socket opened, for routes of a plugin that call others."""
        self._is_enabled = True

    def work(self, worker: Worker) -> None:
        """Have a worker run from the opening of the socket to the end of the server.

        Raises:
            ConfigurationError: There is one: a process works for one platform.
        """
        if self._worker is not None:
            raise ConfigurationError("two plugins want to take work for this process")
        self._worker = worker
        self.enable()

    def open_session(self) -> aiohttp.ClientSession:
        """A client of the application, for the running loop; see `open_session`."""
        return open_session(self.socket_path)

    async def until_ready(self) -> None:
        """Wait until requests are served.

        Raises:
            Unavailable: They will not be; says why.
        """
        if self._is_serving:
            return
        waiting = {
            asyncio.ensure_future(self._has_started.wait()),
            asyncio.ensure_future(self.stopping.wait()),
        }
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
        if not self._is_serving:
            raise Unavailable(self.lifecycle.reason)

    def lets_finish(self, request: web.Request) -> bool:
        """Whether a request is for what the worker took before the stop; those alone are served."""
        return self._is_finishing and request.get_extra_info("sockname") == self.socket_path

    async def until_logged(self, timeout_s: float) -> bool:
        """Wait until every usage line has left; for a process about to be frozen."""
        deadline_s = monotonic() + timeout_s
        while self._num_unlogged() > 0:
            if monotonic() > deadline_s:
                return False
            await asyncio.sleep(_POLL_S)  # the log's thread tells nobody
        return True

    async def open(self, connection_factory: Callable[[], asyncio.Protocol]) -> None:
        """Listen if asked to, and start the worker; the server's to call.

        Args:
            connection_factory: As of the server's other sockets.
        """
        if not self._is_enabled:
            return
        self._folder = TemporaryDirectory(prefix="provider-")  # for its owner only, says tempfile
        self.socket_path = str(Path(self._folder.name, "http"))
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(
            connection_factory,
            self.socket_path,
            backlog=self.settings.limits.max_connections,  # beyond it connecting fails at once
        )
        if self._worker is not None:
            self._task = asyncio.ensure_future(self._worker(self))
            self._task.add_done_callback(self._ended)

    async def stop(self, timeout_s: float, hurry: asyncio.Event) -> None:
        """Have the worker take nothing more, and serve what it has taken until that is answered.

        Args:
            timeout_s: Longest wait.
            hurry: Ends the wait early.
        """
        self.stopping.set()
        if self._task is None:
            return
        self._is_finishing = True
        hurrying = asyncio.ensure_future(hurry.wait())
        either: set[asyncio.Future[Any]] = {self._task, hurrying}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        self._is_finishing = False

    async def close(self) -> None:
        """End the worker and stop listening. Idempotent."""
        self.stopping.set()
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait({task}, timeout=_LAST_WORDS_S)
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):  # `_ended` has told of it
                await task
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @property
    def _is_serving(self) -> bool:
        return self.lifecycle.is_serving or self._is_finishing

    def _see(self, state: State, _: str) -> None:
        if state is not State.STARTING:
            self._has_started.set()

    def _ended(self, task: asyncio.Future[None]) -> None:
        cause = None if task.cancelled() else task.exception()
        if cause is not None or not self.stopping.is_set():
            self._on_failure(cause)


IN_PROCESS = web.AppKey("in_process", InProcess)
"""Where the application of a server has it."""


def open_session(socket_path: str) -> aiohttp.ClientSession:
    """A client of the application that listens there.

    It has no time limits of its own, and a connection for each request: a process that was frozen
    finds none that closed meanwhile, and closing a response early is leaving.
    """
    return aiohttp.ClientSession(
        "http://localhost",
        connector=aiohttp.UnixConnector(socket_path, force_close=True, limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(),
        auto_decompress=False,
    )

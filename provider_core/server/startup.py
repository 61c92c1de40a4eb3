"""What a process is made of by the time its event loop runs, in the order in which it comes.

The socket opens first, and the first model begins to load before the server is imported: see
`listeners` and `loading`.
"""

import os
import time
from collections.abc import Callable
from typing import NoReturn

from provider_core.catalog import specs_from_settings
from provider_core.lifecycle import Lifecycle
from provider_core.observability.line_writer import LineWriter
from provider_core.plugins import make_plugin_manager
from provider_core.server.listeners import Listeners
from provider_core.server.loading import BackendLoader
from provider_core.settings import Settings

EXIT_CANNOT_START = 2
EXIT_CRASHED = 1  # Python's own, with a traceback

_LAST_LINES_S = 5.0  # for the log's reader to read the end
_END_S = 0.5  # of the grace, kept for the interpreter's end


class Startup:
    """A process that listens, and loads its first model.

    Where the platform takes a snapshot it listens only after that: see `take_snapshot`.

    Args:
        settings: All of them.
        read_settings: Reads them anew.
        lifecycle: Of the process.
        writer: Of log and usage lines.

    Raises:
        ProviderError: The process cannot start.

    Attributes:
        settings: Those to serve by.
        read_settings: As given.
        lifecycle: As given.
        writer: As given.
        listeners: The server's sockets.
        plugins: Without the core's defaults.
        specs: Of the models to serve.
        loader: Loads their backends, and has begun to.
    """

    def __init__(
        self,
        settings: Settings,
        read_settings: Callable[[], Settings],
        lifecycle: Lifecycle,
        writer: LineWriter,
    ) -> None:
        self.settings = settings
        self.read_settings = read_settings
        self.lifecycle = lifecycle
        self.writer = writer
        self.listeners = Listeners(settings)
        self._stopping_s: float | None = None
        if settings.server.checkpoint_url is None:
            self._listen()
        with lifecycle.phase("plugins"):
            self.plugins = make_plugin_manager(settings)
            self.specs = specs_from_settings(settings, self.plugins)
        self.loader = BackendLoader(self.plugins, settings, lifecycle)
        self.loader.begin(self.specs[0])

    def take_snapshot(self, url: str) -> None:
        """Load all models, have a snapshot taken, and go on here and in each copy by what is now.

        Args:
            url: Where the platform is asked for it.

        Raises:
            ProviderError: A model cannot be loaded, or the process cannot go on.
        """
        from provider_core.server.snapshot import take_snapshot  # noqa: PLC0415 - for few

        for spec in self.specs[1:]:
            self.loader.begin(spec)
        self.loader.wait()
        take_snapshot(url, self.plugins, self.lifecycle)
        self.settings = self.read_settings()  # a copy may begin days after what it is a copy of
        self.specs = specs_from_settings(self.settings, self.plugins)
        self.loader.revise(self.settings, self.specs)
        self.listeners = Listeners(self.settings)
        self._listen()

    def note_stop(self) -> None:
        """Begin to count the grace: the process was told to end."""
        self._stopping_s = time.monotonic()

    def close_log(self) -> None:
        """Write the log's last lines, if its reader takes them within what is left of the grace."""
        left_s = _LAST_LINES_S
        if self._stopping_s is not None:
            ends_s = self._stopping_s + self.settings.server.grace_s - _END_S
            left_s = min(left_s, max(ends_s - time.monotonic(), _END_S))
        self.writer.close(left_s)

    def exit_now(self, code: int) -> NoReturn:
        """End the process without waiting for a thread that hangs."""
        self.close_log()
        os._exit(code)

    def _listen(self) -> None:
        """Open the socket, and note how long after the start that was."""
        self.listeners.open()
        self.lifecycle.add_phase("listening", self.lifecycle.age_s)

"""`provider serve`: one process from its first line to its exit code.

The socket opens first, and the first model begins to load before the server is imported: see
`listeners` and `loading`.
"""

import gc
import os
import resource
import sys
from collections.abc import Callable
from typing import NoReturn

import structlog

from provider_core.catalog import specs_from_settings
from provider_core.errors import ProviderError
from provider_core.lifecycle import Lifecycle
from provider_core.observability.logs import start_logging
from provider_core.plugins import make_plugin_manager
from provider_core.server.listeners import Listeners
from provider_core.server.loading import BackendLoader
from provider_core.settings import Settings, ignored_variables

log = structlog.get_logger()

EXIT_CANNOT_START = 2
_OTHER_DESCRIPTORS = 256  # models, logs, the loop's own


def run(settings: Settings, lifecycle: Lifecycle, read_settings: Callable[[], Settings]) -> int:
    """Serve until told to stop; says itself on stderr why it cannot.

    Args:
        settings: All of them.
        lifecycle: Of the process.
        read_settings: Reads them anew, after a snapshot.

    Returns:
        The process's exit code: 0 after a drain, 2 if the server cannot start, 70 for a dead
        engine.
    """
    writer = start_logging(settings.logging)
    for variable in ignored_variables():
        log.warning("setting.ignored", setting=variable)
    _allow_descriptors(settings.limits.max_connections + _OTHER_DESCRIPTORS)

    def exit_now(code: int) -> NoReturn:
        """End the process without waiting for a thread that hangs."""
        writer.close()
        os._exit(code)

    loader: BackendLoader | None = None
    listeners = Listeners(settings)
    code = EXIT_CANNOT_START
    try:
        if settings.server.checkpoint_url is None:
            _listen(listeners, lifecycle)
        with lifecycle.phase("plugins"):
            plugins = make_plugin_manager(settings)
            specs = specs_from_settings(settings, plugins)
        loader = BackendLoader(plugins, settings, lifecycle)
        loader.begin(specs[0])
        with lifecycle.phase("import"):
            import uvloop  # noqa: PLC0415 - see above

            from provider_core.server.serving import serve_until_stopped  # noqa: PLC0415
        if settings.server.checkpoint_url is not None:
            from provider_core.server.snapshot import take_snapshot  # noqa: PLC0415 - for few

            for spec in specs[1:]:
                loader.begin(spec)
            loader.wait()
            take_snapshot(settings.server.checkpoint_url, plugins, lifecycle)
            settings = read_settings()  # a copy may begin days after what it is a copy of
            specs = specs_from_settings(settings, plugins)
            loader.revise(settings, specs)
            listeners = Listeners(settings)
            _listen(listeners, lifecycle)
        gc.freeze()  # modules stay: no collection looks at them again
        gc.enable()
        serving = serve_until_stopped(
            settings,
            read_settings,
            plugins,
            specs,
            loader,
            lifecycle,
            writer,
            exit_now,
            listeners,
        )
        code = uvloop.run(serving)
    except ProviderError as error:
        log.error("server.failed", error=error.message)  # noqa: TRY400 - the message says it all
        print(f"provider: {error.message}", file=sys.stderr, flush=True)  # noqa: T201 - for a person
    finally:
        writer.close()
    if loader is not None and loader.is_busy:
        os._exit(code)  # the interpreter must not be torn down under a runtime at work
    return code


def _listen(listeners: Listeners, lifecycle: Lifecycle) -> None:
    """Open the socket, and note how long after the start that was."""
    listeners.open()
    lifecycle.add_phase("listening", lifecycle.age_s)


def _allow_descriptors(wanted: int) -> None:
    """Raise the soft limit of open files as far as the hard one lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))

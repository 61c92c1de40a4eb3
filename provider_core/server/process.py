"""`provider serve`: one process from its first line to its exit code."""

import gc
import os
import resource
import sys
from collections.abc import Callable

import structlog

from provider_core.errors import ProviderError
from provider_core.lifecycle import Lifecycle
from provider_core.observability.logs import start_logging
from provider_core.server.startup import EXIT_CANNOT_START, Startup
from provider_core.settings import Settings, ignored_variables

log = structlog.get_logger()

_OTHER_DESCRIPTORS = 256  # models, logs, the loop's own


def run(settings: Settings, lifecycle: Lifecycle, read_settings: Callable[[], Settings]) -> int:
    """Serve until told to stop; says itself on stderr why it cannot.

    Args:
        settings: All of them.
        lifecycle: Of the process.
        read_settings: Reads them anew, when the file changes and after a snapshot.

    Returns:
        The process's exit code: 0 after a drain, 2 if the server cannot start, 70 for a dead
        engine.
    """
    writer = start_logging(settings.logging)
    for variable in ignored_variables():
        log.warning("setting.ignored", setting=variable)
    settings, read_settings = _fit_connections(settings, read_settings)
    startup: Startup | None = None
    code = EXIT_CANNOT_START
    try:
        startup = Startup(settings, read_settings, lifecycle, writer)
        with lifecycle.phase("import"):  # while the first model loads
            import uvloop  # noqa: PLC0415

            from provider_core.server.serving import serve_until_stopped  # noqa: PLC0415
        if settings.server.checkpoint_url is not None:
            startup.take_snapshot(settings.server.checkpoint_url)
        gc.freeze()  # modules stay: no collection looks at them again
        gc.enable()
        code = uvloop.run(serve_until_stopped(startup))
    except ProviderError as error:
        log.error("server.failed", error=error.message)  # noqa: TRY400 - the message says it all
        print(f"provider: {error.message}", file=sys.stderr, flush=True)  # noqa: T201 - for a person
    finally:
        if startup is None:
            writer.close()
        else:
            startup.close_log()
    if startup is not None and startup.loader.is_busy:
        os._exit(code)  # the interpreter must not be torn down under a runtime at work
    return code


def _fit_connections(
    settings: Settings, read_settings: Callable[[], Settings]
) -> tuple[Settings, Callable[[], Settings]]:
    """Take no more connections than may have a descriptor; beyond them the system resets any."""
    wanted = settings.limits.max_connections
    most = _allow_connections(wanted)
    if most == wanted:
        return settings, read_settings
    log.warning("connections.capped", max_connections=most, wanted=wanted)

    def fit(settings: Settings) -> Settings:
        fitting = {"max_connections": min(settings.limits.max_connections, most)}
        return settings.model_copy(update={"limits": settings.limits.model_copy(update=fitting)})

    return fit(settings), lambda: fit(read_settings())


def _allow_connections(wanted: int) -> int:
    """Raise the soft limit of open files as far as the hard one lets us.

    Returns:
        How many connections there may be; where files are few, every other one is something else.
    """
    num_files = wanted + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= num_files:
        return wanted
    if hard != resource.RLIM_INFINITY:
        num_files = min(num_files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (num_files, hard))
    return min(wanted, num_files - min(_OTHER_DESCRIPTORS, num_files // 2))

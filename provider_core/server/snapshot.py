"""A snapshot of the process with its models loaded, where the platform takes one on request.

It is taken before the server opens anything, so that no two copies share a socket, a journal, a
boot id or a random state, and nothing has to be opened twice.
"""

import time
from http.client import BadStatusLine, HTTPException, IncompleteRead
from urllib.request import Request, urlopen

import structlog

from provider_core import hookspecs
from provider_core.lifecycle import Lifecycle
from provider_core.plugins import PluginManager

log = structlog.get_logger()

_PATIENCE_S = 600.0  # the platform writes all memory, the GPU's included, to its storage
_CUT = (ConnectionResetError, BadStatusLine, IncompleteRead)  # before a reply, or anywhere in it


def take_snapshot(url: str, plugins: PluginManager, lifecycle: Lifecycle) -> None:
    """Ask the platform for a snapshot, and return in this process and in each copy.

    A copy finds the connection of its request cut. A platform that takes none is logged.

    Args:
        url: Where to ask, on this machine, by plain HTTP.
        plugins: Told before and after.
        lifecycle: Counts the start of a copy from its own beginning.
    """
    plugins.every(hookspecs.before_snapshot)
    started_s = time.monotonic()
    try:
        with urlopen(Request(url, method="POST"), timeout=_PATIENCE_S) as reply:  # noqa: S310 - of the operator
            reply.read()
    except _CUT:
        lifecycle.restart()
        log.info("snapshot.restored")
    except (OSError, HTTPException) as error:
        log.warning("snapshot.failed", error=str(error))
    else:
        log.info("snapshot.taken", duration_ms=round(1e3 * (time.monotonic() - started_s), 1))
    plugins.every(hookspecs.after_restore)

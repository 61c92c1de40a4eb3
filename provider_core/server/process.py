"""`provider serve`: one process from its first line to its exit code."""

import asyncio
import os
import resource
import shlex
import signal
import sys

import structlog
import uvloop

from provider_core.access.keys import load_or_mint
from provider_core.access.plugin import ApiKeyPlugin
from provider_core.errors import ProviderError
from provider_core.lifecycle import Lifecycle
from provider_core.observability.line_writer import LineWriter
from provider_core.observability.logs import start_logging
from provider_core.plugins import PluginManager, make_plugin_manager
from provider_core.server.app import ExitNow, Server
from provider_core.server.defaults import TextDefaults
from provider_core.server.reload import ConfigurationFile, Reloader
from provider_core.settings import Settings

log = structlog.get_logger()

EXIT_CANNOT_START = 2
_OTHER_DESCRIPTORS = 256  # models, logs, the loop's own


def run(settings: Settings, lifecycle: Lifecycle) -> int:
    """Serve until told to stop.

    Returns:
        The process's exit code: 0 after a drain, 70 for a dead engine.

    Raises:
        ProviderError: The server cannot start.
    """
    writer = start_logging(settings.logging)
    _allow_descriptors(settings.limits.max_connections + _OTHER_DESCRIPTORS)

    def exit_now(code: int) -> None:
        """End the process without waiting for a thread that hangs."""
        writer.close()
        os._exit(code)

    try:
        return uvloop.run(serve(settings, lifecycle, writer, exit_now))
    finally:
        writer.close()


async def serve(
    settings: Settings, lifecycle: Lifecycle, writer: LineWriter, exit_now: ExitNow
) -> int:
    """Start, serve, drain; `run` on a running loop.

    Raises:
        ProviderError: The server cannot start.
    """
    with lifecycle.phase("plugins"):
        plugins = make_plugin_manager(settings)
        plugins.register(TextDefaults(settings), "core-text")
        minted = _register_keys(settings, plugins)
    server = Server(settings, plugins, writer, lifecycle, exit_now, lambda: writer.num_dropped)
    loop = asyncio.get_running_loop()
    reload = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, server.stop)
    loop.add_signal_handler(signal.SIGHUP, reload.set)  # for good: its default would kill us
    try:
        with lifecycle.phase("bind"):
            port = await server.open()
        await _load_or_exit(server, exit_now)
        _greet(settings, server.models.specs[0].id, port, minted)
        file = ConfigurationFile(settings, plugins)
        reloader = Reloader(server.models, file.read_specs, settings.config, reload)
        async with reloader.watching():
            await server.stopping.wait()
        await server.drain()
    except ProviderError as exc:
        server.exit_code = EXIT_CANNOT_START
        log.error("server.failed", error=exc.message)  # noqa: TRY400 - the message says it all
        raise
    finally:
        await server.close()
    return server.exit_code


async def _load_or_exit(server: Server, exit_now: ExitNow) -> None:
    """Load the models, unless a signal comes first: then do not wait for the loading thread."""
    loading = asyncio.create_task(server.load())
    stopping = asyncio.create_task(server.stopping.wait())
    await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        log.info("server.stopped", exit_code=server.exit_code)
        if server.journal is not None:
            server.journal.close(timeout_s=1)
        exit_now(server.exit_code)
    stopping.cancel()
    await loading


def _allow_descriptors(wanted: int) -> None:
    """Raise the soft limit of open files as far as the hard one lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _register_keys(settings: Settings, plugins: PluginManager) -> str | None:
    """Let keys in; the secret if one was minted just now."""
    if not settings.access.require_key:
        return None
    store, minted = load_or_mint(settings.data_dir, settings.api_key)
    plugins.register(ApiKeyPlugin(store), "core-keys")
    if minted is not None:
        _tell(f"API key (shown this once, stored hashed in {settings.data_dir}): {minted}")
    return minted


def _greet(settings: Settings, model_id: str, port: int, minted: str | None) -> None:
    """Tell a person where the server is, with a command to paste."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{port}"
    authorization = ""
    if settings.access.require_key:
        key = minted or ("$PROVIDER_API_KEY" if settings.api_key else "$KEY")
        authorization = f' -H "Authorization: Bearer {key}"'
    body = f'{{"model": "{model_id}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    lines = [
        f"provider-core listens on {url}",
        "",
        f"  curl {url}/v1/chat/completions{authorization} \\",
        f"    -H 'Content-Type: application/json' -d {shlex.quote(body)}",
        "",
    ]
    if settings.access.require_key and not (minted or settings.api_key):
        lines += [
            f"  KEY is the one shown at the first start; without it, remove {settings.data_dir}",
            "  and start again, or set PROVIDER_API_KEY.",
            "",
        ]
    _tell("\n".join(lines))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - for a person, not for a log

"""The server on its event loop: opens, loads, serves and drains until it is told to stop."""

import asyncio
import shlex
import signal
import sys

import structlog

from provider_core.access.keys import KeyStore
from provider_core.access.plugin import ApiKeyPlugin
from provider_core.errors import ProviderError
from provider_core.plugins import PluginManager
from provider_core.server.app import Server
from provider_core.server.defaults import TextDefaults
from provider_core.server.open_keys import following_given_keys, is_uri, open_keys
from provider_core.server.reload import ConfigurationFile, Reloader
from provider_core.server.startup import EXIT_CANNOT_START, EXIT_CRASHED, Startup
from provider_core.settings import Settings, suggested_platform

log = structlog.get_logger()


async def serve_until_stopped(startup: Startup) -> int:
    """Start, serve, drain.

    Args:
        startup: What there is so far.

    Returns:
        The process's exit code.

    Raises:
        ProviderError: The server cannot start.
    """
    settings, plugins, writer = startup.settings, startup.plugins, startup.writer
    plugins.register(TextDefaults(settings), "core-text")
    keys, minted = _register_keys(settings, plugins)
    server = Server(
        settings,
        plugins,
        writer,
        startup.lifecycle,
        startup.exit_now,
        num_dropped_lines=lambda: writer.num_dropped,
        num_warnings=lambda: writer.num_warnings,
        loader=startup.loader,
        keys=keys,
        listeners=startup.listeners,
    )
    loop = asyncio.get_running_loop()
    reload = asyncio.Event()
    # Not the loop's own handlers: when it closes it puts the defaults back, which would kill us.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: loop.call_soon_threadsafe(server.stop))
    signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(reload.set))
    try:
        with startup.lifecycle.phase("open"):
            port = await server.open()
        await _load_or_exit(server, startup)
        _greet(settings, server.models.specs[0].id, port, minted)
        if platform := await asyncio.to_thread(suggested_platform, settings):
            log.warning("platform.suggested", platform=platform, setting="PROVIDER_PLATFORM")
        file = ConfigurationFile(settings, startup.read_settings, plugins)
        reloader = Reloader(server.models, file.read_specs, settings.config, reload, startup.specs)
        async with reloader.watching(), following_given_keys(keys, settings, plugins):
            await server.stopping.wait()
            startup.note_stop()
        await server.drain()
    except Exception as error:
        server.exit_code = EXIT_CANNOT_START if isinstance(error, ProviderError) else EXIT_CRASHED
        raise
    finally:
        await server.close()
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)  # it ends, with the code that is due
    return server.exit_code


async def _load_or_exit(server: Server, startup: Startup) -> None:
    """Load the models, unless a signal comes first: then do not wait for the loading thread."""
    loading = asyncio.create_task(server.load(startup.specs))
    stopping = asyncio.create_task(server.stopping.wait())
    await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        startup.note_stop()
        log.info("server.stopped", exit_code=server.exit_code)
        if server.journal is not None:
            server.journal.close(timeout_s=1)
        startup.exit_now(server.exit_code)
    stopping.cancel()
    await loading


def _register_keys(
    settings: Settings, plugins: PluginManager
) -> tuple[KeyStore | None, str | None]:
    """Let keys in; also the secret if one was minted just now."""
    if not settings.access.require_key:
        return None, None
    store, minted = open_keys(settings, plugins)
    plugins.register(ApiKeyPlugin(store), "core-keys")
    if minted is not None:
        _tell(f"API key (shown this once, stored hashed in {settings.data_dir}): {minted}")
    return store, minted


def _greet(settings: Settings, model_id: str, port: int, minted: str | None) -> None:
    """Tell a person where the server is, with a command to paste."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{port}"
    authorization = ""
    names_key = settings.api_key is not None and is_uri(settings.api_key)
    if settings.access.require_key:
        key = minted or ("$PROVIDER_API_KEY" if settings.api_key and not names_key else "$KEY")
        authorization = f' -H "Authorization: Bearer {key}"'
    body = f'{{"model": "{model_id}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    lines = [
        f"provider-core listens on {url}",
        "",
        f"  curl {url}/v1/chat/completions{authorization} \\",
        f"    -H 'Content-Type: application/json' -d {shlex.quote(body)}",
        "",
    ]
    if settings.access.require_key and names_key:
        lines += [f"  KEY is what {settings.api_key} holds.", ""]
    elif settings.access.require_key and not (minted or settings.api_key):
        lines += [
            "  KEY is the one shown at the first start; `provider keys create NAME` makes another.",
            "",
        ]
    _tell("\n".join(lines))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - for a person, not for a log

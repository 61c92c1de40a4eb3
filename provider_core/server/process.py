"""`provider serve`: one process from its first line to its exit code."""

import asyncio
import os
import shlex
import signal
import sys

import structlog
import uvloop

from provider_core.access.keys import load_or_mint
from provider_core.access.plugin import ApiKeyPlugin
from provider_core.catalog import specs_from_settings
from provider_core.lifecycle import Lifecycle
from provider_core.observability.line_writer import LineWriter
from provider_core.observability.logs import start_logging
from provider_core.plugins import PluginManager, make_plugin_manager
from provider_core.server.app import ExitNow, Server
from provider_core.server.defaults import TextDefaults
from provider_core.server.reload import Reloader
from provider_core.settings import Settings, load_settings
from provider_core.types import ModelSpec

log = structlog.get_logger()


def run(settings: Settings, lifecycle: Lifecycle) -> int:
    """Serve until told to stop.

    Returns:
        The process's exit code: 0 after a drain, 70 for a dead engine.

    Raises:
        ProviderError: The server cannot start.
    """
    writer = start_logging(settings.logging)

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
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, server.stop)
    try:
        with lifecycle.phase("bind"):
            port = await server.open()
        _greet(settings, specs_from_settings(settings, plugins), port, minted)
        if await _load_unless_stopped(server):
            reloader = Reloader(
                server.models,
                lambda: specs_from_settings(_read_again(settings), plugins),
                settings.config,
            )
            async with reloader.watching():
                await server.stopping.wait()
        await server.drain()
    finally:
        await server.close()
    return server.exit_code


async def _load_unless_stopped(server: Server) -> bool:
    """Load the models; `False` if a signal came first."""
    loading = asyncio.create_task(server.load())
    stopping = asyncio.create_task(server.stopping.wait())
    await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if loading.done():
        loading.result()
        return True
    loading.cancel()
    return False


def _read_again(settings: Settings) -> Settings:
    """Read the file anew; what the command line and the environment said stays."""
    fresh = load_settings(config=settings.config)
    return settings.model_copy(update={"models": fresh.models})


def _register_keys(settings: Settings, plugins: PluginManager) -> str | None:
    """Let keys in; the secret if one was minted just now."""
    if not settings.access.require_key:
        return None
    store, minted = load_or_mint(settings.data_dir, settings.api_key)
    plugins.register(ApiKeyPlugin(store), "core-keys")
    return minted


def _greet(settings: Settings, specs: list[ModelSpec], port: int, minted: str | None) -> None:
    """Tell a person where the server is, with a command to paste; a key is shown this once."""
    url = f"http://{settings.host}:{port}"
    lines = [f"provider-core listens on {url}"]
    if minted is not None:
        lines += [
            "",
            f"  API key (shown once, stored hashed in {settings.data_dir}):",
            f"  {minted}",
        ]
    authorization = ""
    if settings.access.require_key:
        authorization = f' -H "Authorization: Bearer {minted or "$PROVIDER_API_KEY"}"'
    body = f'{{"model": "{specs[0].id}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    lines += [
        "",
        f"  curl {url}/v1/chat/completions{authorization} \\",
        f"    -H 'Content-Type: application/json' -d {shlex.quote(body)}",
        "",
    ]
    print("\n".join(lines), file=sys.stderr, flush=True)  # noqa: T201 - for a person, once

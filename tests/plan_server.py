"""A replica in a process of its own: `python -m tests.plan_server FOLDER OPTIONS`.

It serves a scripted model whose steps last as long as OPTIONS, in JSON, say to `ScriptedRunner`,
and writes its port to standard output. Its steps are sleeps, so that two can share a processor.
"""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from provider_core import hookimpl
from provider_core.access.keys import load_or_mint
from provider_core.access.plugin import ApiKeyPlugin
from provider_core.interfaces import ModelRunner
from provider_core.lifecycle import Lifecycle
from provider_core.observability import start_logging
from provider_core.plugins import make_plugin_manager
from provider_core.server.app import Server
from provider_core.server.defaults import TextDefaults
from provider_core.settings import load_settings
from provider_core.types import ModelSpec
from tests.serving import KEY, ids_of, make_model_dir, scripted_runner

SLOTS = 4


class Scripted:
    """The backend."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    @hookimpl
    def load_model(self, model: ModelSpec) -> ModelRunner:
        """Answer in plain letters: each token is text as soon as it is made."""
        return scripted_runner(reply=ids_of("over and over ") * 20, **self._options)(model)


async def main(folder: Path, options: dict[str, Any]) -> None:
    """Serve until a signal."""
    source = str(make_model_dir(folder / "model"))
    settings = load_settings(
        port=0,
        api_key=KEY,
        data_dir=folder / "data",
        plugins=(),
        models=({"id": "test-model", "source": source, "max_num_seqs": SLOTS},),
        limits={"queue_factor": 1000, "queue_wait_s": 600},
        engine={"speculation": "off"},
    )
    writer = start_logging(settings.logging, fd=sys.stderr.fileno())
    plugins = make_plugin_manager(settings)
    plugins.register(TextDefaults(settings), "core-text")
    store, _ = load_or_mint(settings.data_dir, settings.api_key)
    plugins.register(ApiKeyPlugin(store), "core-keys")
    plugins.register(Scripted(options), "scripted")
    server = Server(settings, plugins, writer, Lifecycle())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
    try:
        port = await server.open()
        await server.load()
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        await server.stopping.wait()
    finally:
        await server.close()
        writer.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), json.loads(sys.argv[2])))

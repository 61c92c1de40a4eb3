"""A server for a platform in a process of its own, and a test's hold on it.

`python -m tests.platform.scripted_process FOLDER PLATFORM [LOAD]` does what `provider serve
--platform PLATFORM` does, with a scripted model that answers "Hello!" and then, for who ignores the
end, goes on for ever; one token each `STEP_S`. LOAD is `fail` for a model that cannot be loaded, or
a file that it waits for.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provider_core import ConfigurationError, ModelSpec, ProviderError, hookimpl
from provider_core.catalog import specs_from_settings
from provider_core.interfaces import ModelRunner
from provider_core.lifecycle import Lifecycle
from provider_core.observability import start_logging
from provider_core.plugins import make_plugin_manager
from provider_core.server.loading import BackendLoader
from provider_core.server.serving import serve_until_stopped
from provider_core.settings import load_settings
from tests.serving import KEY, make_model_dir, saying

STEP_S = 0.005

_CONFIGURATION = """
data_dir = "data"
logging.format = "json"
[[model]]
id = "test-model"
source = "model"
max_num_seqs = 4
pricing = { prompt = "0.000001", completion = "0.000002" }
"""


class Scripted:
    """The backend."""

    def __init__(self, load: str) -> None:
        self._load = load

    @hookimpl
    def load_model(self, model: ModelSpec) -> ModelRunner:
        """Answer everything alike."""
        if self._load == "fail":
            raise ConfigurationError("no such weights")
        while self._load and not Path(self._load).exists():
            time.sleep(0.01)
        return saying("Hello!", step_time_s=STEP_S)(model)


def main(folder: Path, platform: str, load: str = "") -> int:
    """Serve until a signal."""
    make_model_dir(folder / "model")
    (folder / "provider.toml").write_text(_CONFIGURATION, encoding="utf-8")
    settings = load_settings(config=folder / "provider.toml", platform=platform, plugins=())
    lifecycle = Lifecycle()
    writer = start_logging(settings.logging)
    try:
        plugins = make_plugin_manager(settings)
        plugins.register(Scripted(load), "scripted")
        loader = BackendLoader(plugins, settings, lifecycle)
        specs = specs_from_settings(settings, plugins)
        return serve_until_stopped(settings, plugins, specs, loader, lifecycle, writer, os._exit)
    except ProviderError as error:
        sys.stderr.write(f"provider: {error.message}\n")
        return 2
    finally:
        writer.close()


@dataclass(slots=True)
class PlatformProcess:
    """A running one.

    Attributes:
        folder: Its log is in `log`, what it says to people in `stderr`.
    """

    process: asyncio.subprocess.Process
    folder: Path

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its log, whole lines."""
        text = (self.folder / "log").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    @property
    def usage(self) -> list[dict[str, Any]]:
        """Its bills."""
        return [event for event in self.events if event["event"] == "usage.final"]

    @property
    def stderr(self) -> str:
        """What it said to people."""
        return (self.folder / "stderr").read_text(encoding="utf-8")

    @property
    def descendants(self) -> list[int]:
        """Processes that it began, and those that they did."""
        found: list[int] = []
        waiting = [self.process.pid]
        while waiting:
            pid = waiting.pop()
            for path in Path(f"/proc/{pid}/task").glob("*/children"):
                children = [int(child) for child in path.read_text().split()]
                found += children
                waiting += children
        return found

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds; the suite's time limit ends a wait in vain."""
        while not condition():  # noqa: ASYNC110 - whatever a test can look at
            await asyncio.sleep(0.01)

    async def until_logged(self, event: str) -> None:
        """Wait for a line of an event."""
        await self.until(
            lambda: (
                self.process.returncode is not None
                or any(each["event"] == event for each in self.events)
            )
        )
        assert self.process.returncode is None, self.stderr

    async def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and wait until it has.

        Returns:
            Its exit code.
        """
        with suppress(ProcessLookupError):
            self.process.send_signal(signum)
        return await self.process.wait()


@asynccontextmanager
async def platform_process(
    folder: Path, platform: str, environment: Mapping[str, str], load: str = ""
) -> AsyncIterator[PlatformProcess]:
    """Run one until the context ends.

    Args:
        folder: Of its data and its log; is there.
        platform: Which.
        environment: What the platform sets beside the usual.
        load: How the model loads; see above.
    """
    with (folder / "log").open("wb") as log, (folder / "stderr").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.platform.scripted_process",
            str(folder),
            platform,
            load,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=errors,
            env={"PROVIDER_PORT": "0", "PROVIDER_API_KEY": KEY, **environment},
            cwd=Path(__file__).parents[2],
        )
    try:
        yield PlatformProcess(process, folder)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))

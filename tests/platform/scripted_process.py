"""`provider serve --platform PLATFORM` in a process of its own, and a test's hold on it.

Its model is scripted: it answers "Hello!" and then, for who ignores the end, goes on for ever; one
token each `STEP_S`. `SCRIPTED_LOAD` in the environment is `fail` for a model that cannot be loaded,
or a file that it waits for.
"""

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provider_core import ConfigurationError, ModelSpec, hookimpl
from provider_core.interfaces import ModelRunner
from tests.serving import KEY, make_model_dir, saying

STEP_S = 0.005
ROOT = Path(__file__).parents[2]

_PROVIDER = (sys.executable, "-c", "from provider_core.cli import main; main()")
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
    """The backend, as a plugin of the process."""

    @hookimpl
    def load_model(self, model: ModelSpec) -> ModelRunner:
        """Answer everything alike."""
        load = os.environ.get("SCRIPTED_LOAD", "")  # noqa: TID251 - no setting of the server
        if load == "fail":
            raise ConfigurationError("no such weights")
        while load and not Path(load).exists():
            time.sleep(0.01)
        return saying("Hello!", step_time_s=STEP_S)(model)


plugin = Scripted()


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
    def addresses(self) -> list[str]:
        """Where it listens, once it has said so; of its copies, too."""
        return re.findall(r"listens on (\S+)", self.stderr)

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
        folder: Of everything that it writes; is there, and empty.
        platform: Which.
        environment: What the platform sets beside the usual.
        load: How the model loads; see above.
    """
    make_model_dir(folder / "model")
    (folder / "provider.toml").write_text(_CONFIGURATION, encoding="utf-8")
    info = folder / "site/scripted-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[provider_core]\nscripted = {__name__}:plugin\n")
    with (folder / "log").open("wb") as log, (folder / "stderr").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *_PROVIDER,
            "serve",
            "--platform",
            platform,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=errors,
            env={
                "PYTHONPATH": f"{info.parent}:{ROOT}:{ROOT}/plugins:{ROOT}/handlers",
                "PROVIDER_PLUGINS": "scripted",
                "PROVIDER_PORT": "0",
                "PROVIDER_API_KEY": KEY,
                "SCRIPTED_LOAD": load,
                **environment,
            },
            cwd=folder,
        )
    try:
        yield PlatformProcess(process, folder)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

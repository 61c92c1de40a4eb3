"""Servers as a platform starts them: as a process of their own, or in this one where that is quick.

Either way the settings come from the environment alone, as on a platform.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

from structlog.testing import capture_logs

from provider_core.access.plugin import ApiKeyPlugin
from provider_core.billing.audit.books import Books
from provider_core.billing.audit.reconcile import Finding, reconcile
from provider_core.billing.audit.sources import read_source
from provider_core.lifecycle import Lifecycle
from provider_core.plugins import PluginManager, make_plugin_manager
from provider_core.server.app import Server
from provider_core.server.defaults import TextDefaults
from provider_core.server.open_keys import open_keys
from provider_core.settings import Settings, load_settings
from tests.platform.contracts import Contract
from tests.platform.talking_engine import TalkingBackend
from tests.serving import KEY, MemorySink, make_model_dir

ROOT = Path(__file__).parents[2]
PROVIDER = [sys.executable, "-c", "from provider_core.cli import main; main()"]


class Replica(Protocol):
    """A started server.

    Attributes:
        port: Where it should listen.
        probe_port: Where it should answer health checks.
    """

    port: int
    probe_port: int

    def finish_loading(self) -> None:
        """Let the model be loaded."""
        ...

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal."""
        ...

    def hurry(self) -> None:
        """Do not wait for what nobody looks at, where that can be done."""
        ...

    async def ended(self, grace_s: float) -> int:
        """Wait for its end, and kill it after the grace.

        Returns:
            Its exit code.
        """
        ...

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged, usage lines included."""
        ...


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def environment_of(
    name: str, contract: Contract, folder: Path, ports: tuple[int, int]
) -> dict[str, str]:
    """What the platform sets, and what its user does."""
    port, probe_port = ports
    environment = {
        **contract.environment,
        "PROVIDER_PLATFORM": name,
        "PROVIDER_MODEL": str(make_model_dir(folder / "test-model", max_model_len=32768)),
        "PROVIDER_API_KEY": KEY,
        "PROVIDER_DATA_DIR": str(folder / "data"),
        "PROVIDER_ACCESS__FAILED_KEYS_PER_MINUTE": "1",
        "PROVIDER_LOGGING__FORMAT": "json",
    }
    if contract.port_variables:
        environment[contract.port_variables[0]] = str(port)
    else:
        environment["PROVIDER_PORT"] = str(port)
    if contract.probe_port_variable is not None:
        environment[contract.probe_port_variable] = str(probe_port)
    return environment


def ports_for(contract: Contract) -> tuple[int, int]:
    """A free one, and another for probes if the platform may ask there."""
    port = free_port()
    return port, free_port() if contract.probe_port_variable is not None else port


@dataclass
class InProcessReplica:
    """A server on this event loop."""

    server: Server
    sink: MemorySink
    port: int
    probe_port: int
    gate: threading.Event
    logs: list[Any]
    draining: asyncio.Task[None] | None = None

    def finish_loading(self) -> None:
        """See `Replica`."""
        self.gate.set()

    def send(self, signum: signal.Signals) -> None:
        """As the process does for each signal that it knows."""
        assert signum in {signal.SIGTERM, signal.SIGINT}
        self.server.stop()
        self.draining = asyncio.create_task(self.server.drain())

    def hurry(self) -> None:
        """As a second signal."""
        self.server.stop()

    async def ended(self, grace_s: float) -> int:
        """See `Replica`."""
        assert self.draining is not None
        async with asyncio.timeout(grace_s):
            await self.draining
        return self.server.exit_code

    def lines(self) -> list[dict[str, Any]]:
        """See `Replica`."""
        return [*self.logs, *self.sink.events]


@asynccontextmanager
async def in_process(
    name: str, contract: Contract, folder: Path
) -> AsyncIterator[InProcessReplica]:
    """Start a server here; its model waits to be loaded."""
    gate = threading.Event()
    ports = ports_for(contract)
    environment = environment_of(name, contract, folder, ports)
    settings = _settings_from({**environment, "PROVIDER_JOURNAL__ENABLED": "false"}, folder)
    plugins = make_plugin_manager(settings)
    plugins.register(TextDefaults(settings), "core-text")
    plugins.register(TalkingBackend(gate.wait), "talking")
    sink = MemorySink()
    with capture_logs() as logs:
        server = await _make_server(settings, plugins, sink)
        loading = asyncio.create_task(server.load())
        replica = InProcessReplica(server, sink, *ports, gate, logs)
        try:
            yield replica
        finally:
            gate.set()
            await loading
            if replica.draining is not None:  # it closes the server, too
                replica.hurry()
                await asyncio.wait({replica.draining})
            await server.close()


def _settings_from(environment: Mapping[str, str], folder: Path) -> Settings:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PROVIDER_")}  # noqa: TID251
    cwd = Path.cwd()
    os.chdir(folder)  # away from anybody's provider.toml
    try:
        with mock.patch.dict(os.environ, {**kept, **environment}, clear=True):  # noqa: TID251
            return load_settings(plugins=())
    finally:
        os.chdir(cwd)


async def _make_server(settings: Settings, plugins: PluginManager, sink: MemorySink) -> Server:
    store, _ = open_keys(settings, plugins)
    plugins.register(ApiKeyPlugin(store), "core-keys")
    server = Server(settings, plugins, sink, Lifecycle(), keys=store)
    await server.open()
    return server


@dataclass
class ProcessReplica:
    """A server in a process of its own: `provider serve`."""

    process: asyncio.subprocess.Process
    log: Path
    gate: Path
    port: int
    probe_port: int
    started_s: float
    stopped_s: float = 0.0

    def finish_loading(self) -> None:
        """See `Replica`."""
        self.gate.touch()

    def send(self, signum: signal.Signals) -> None:
        """See `Replica`."""
        self.stopped_s = time.monotonic()
        self.process.send_signal(signum)

    def hurry(self) -> None:
        """A process is given its time."""

    async def ended(self, grace_s: float) -> int:
        """See `Replica`."""
        try:
            async with asyncio.timeout(grace_s - (time.monotonic() - self.stopped_s)):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            return await self.process.wait()

    def lines(self) -> list[dict[str, Any]]:
        """See `Replica`."""
        whole, _, _ = self.log.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]

    def discrepancies(self) -> list[Finding]:
        """What its journal and its log do not agree about, once it has ended."""
        with Books() as books:
            books.read("journal", read_source(self.log.parent / "data" / "journal"))
            books.read("log", read_source(self.log))
            found = reconcile(books, now_s=time.time(), max_request_s=0)
        return [finding for finding in found if finding.is_discrepancy]


@asynccontextmanager
async def as_process(
    name: str, contract: Contract, folder: Path, **further: str
) -> AsyncIterator[ProcessReplica]:
    """Start `provider serve`; its model waits to be loaded. It is killed at the end.

    Args:
        name: Of the platform.
        contract: What it does.
        folder: For everything that the process writes.
        **further: Variables that the platform's user sets.
    """
    site = folder / "site"
    info = site / "talking-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: talking\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[provider_core]\ntalking = tests.platform.talking_engine:plugin\n"
    )
    ports = ports_for(contract)
    gate, log = folder / "gate", folder / "log"
    environment = {
        **environment_of(name, contract, folder, ports),
        "PYTHONPATH": ":".join(map(str, (site, ROOT, ROOT / "plugins", ROOT / "handlers"))),
        "PROVIDER_PLUGINS": "talking",
        "TALKING_GATE": str(gate),
        **further,
    }
    started_s = time.monotonic()
    with log.open("ab") as out, (folder / "err").open("ab") as err:
        process = await asyncio.create_subprocess_exec(
            *PROVIDER, "serve", cwd=folder, env=environment, stdout=out, stderr=err
        )
    try:
        yield ProcessReplica(process, log, gate, *ports, started_s)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

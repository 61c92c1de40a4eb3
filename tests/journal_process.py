"""A server in a process of its own: `python -m tests.journal_process FOLDER [POINT [SETTINGS]]`.

It serves a scripted model with a journal in FOLDER, says its port in FOLDER/port, and writes its
log to standard output. POINT is a label of the protocol at which it kills itself, the nth time if
it ends in `:n`; `await k` is the kth await of a chat's handler. SETTINGS are further ones, in JSON.
"""

import asyncio
import json
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from aiohttp import web

from provider_core import hookimpl
from provider_core.access.keys import load_or_mint
from provider_core.access.plugin import ApiKeyPlugin
from provider_core.billing.journal import Disk
from provider_core.interfaces import ModelRunner
from provider_core.lifecycle import Lifecycle
from provider_core.observability import start_logging
from provider_core.plugins import make_plugin_manager
from provider_core.server.app import Server
from provider_core.server.defaults import TextDefaults
from provider_core.server.sse import SseWriter
from provider_core.settings import LoggingSettings, load_settings
from provider_core.types import ModelSpec
from tests.serving import KEY, make_model_dir, saying
from tests.suspensions import AtSuspension

MID_FINAL = "mid final"
MID_TERMINATOR = "mid terminator"
AFTER_DELIVERY = "after delivery"
AWAIT = "await "


def die() -> None:
    """As `kill -9` would have it."""
    os.kill(os.getpid(), signal.SIGKILL)


class CrashingDisk(Disk):
    """Dies at a labelled point."""

    def __init__(self, point: str, countdown: int) -> None:
        self._point = point
        self._countdown = countdown
        self._delivered = threading.Semaphore(0)
        self._was_lost = False

    def reach(self, point: str) -> None:
        """Die if this is the one: of deliveries one that failed, once the file says so."""
        if point == self._point:
            if point == AFTER_DELIVERY:
                self._delivered.acquire()
            self._countdown -= point != AFTER_DELIVERY or self._was_lost
            if self._countdown == 0:
                die()

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Die in the middle of a bill if that is the point."""
        if self._point == MID_FINAL and b'"rec":"F"' in bytes(data):
            self._countdown -= 1
            if self._countdown == 0:
                super().write(fd, data[: len(data) * 2 // 3])
                die()
        written = super().write(fd, data)
        if b'"rec":"D"' in bytes(data):  # one at a time: see `reach`
            self._was_lost = b'"delivery":"failed"}' in bytes(data)
            self._delivered.release()
        return written


def lose_whole_answers() -> None:
    """From now on, let every connection break before a whole answer has left."""

    async def breaking(_: web.Response) -> None:
        raise ConnectionResetError

    mock.patch.object(web.Response, "write_eof", breaking).start()


def die_amid_terminators(countdown: int) -> None:
    """From now on, write half of the nth end of a stream and die."""
    close = SseWriter.close
    left = countdown

    async def dying(writer: SseWriter, last: bytes) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            writer.write(last[: len(last) // 2])
            die()
        await close(writer, last)

    mock.patch.object(SseWriter, "close", dying).start()


def die_at_await(number: int, countdown: int) -> AtSuspension:
    """A plugin that dies the nth time that the handler of a chat comes to its kth await."""
    left = countdown

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            die()

    plugin = AtSuspension("/v1/chat/completions", count)
    plugin.point = number
    return plugin


class Scripted:
    """The backend."""

    @hookimpl
    def load_model(self, model: ModelSpec) -> ModelRunner:
        """Answer everything alike."""
        return saying("Hello!", step_time_s=0.001)(model)


async def main(folder: Path, point: str, overrides: dict[str, Any]) -> None:
    """Serve until a signal."""
    name, _, countdown = point.partition(":")
    disk = CrashingDisk(name, int(countdown or 1))
    if name == MID_TERMINATOR:
        die_amid_terminators(int(countdown or 1))
    if name == AFTER_DELIVERY:
        lose_whole_answers()
    writer = start_logging(LoggingSettings(format="json"))
    pricing = {"prompt": "0.000001", "completion": "0.000002"}
    model = {"id": "test-model", "source": str(make_model_dir(folder / "model"))}
    settings = load_settings(
        port=0,
        api_key=KEY,
        data_dir=folder / "data",
        plugins=(),
        models=({**model, "pricing": pricing},),
        **{"server": {"grace_s": 10}, **overrides},
    )
    plugins = make_plugin_manager(settings)
    plugins.register(TextDefaults(settings), "core-text")
    store, _ = load_or_mint(settings.data_dir, settings.api_key)
    plugins.register(ApiKeyPlugin(store), "core-keys")
    plugins.register(Scripted(), "scripted")
    if name.startswith(AWAIT):
        plugins.register(die_at_await(int(name.removeprefix(AWAIT)), int(countdown or 1)))
    server = Server(settings, plugins, writer, Lifecycle(), disk=disk)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
    try:
        port = await server.open()
        await server.load()
        (folder / "port.new").write_text(str(port))
        (folder / "port.new").rename(folder / "port")
        await server.stopping.wait()
        await server.drain()
    finally:
        await server.close()
        writer.close()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        folder, point, settings, *_ = [*sys.argv[1:], "", "{}"]
        asyncio.run(main(Path(folder), point, json.loads(settings)))

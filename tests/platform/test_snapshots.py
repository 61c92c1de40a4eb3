"""Two servers of one memory, as a platform that takes snapshots begins them."""

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from provider_core.billing.audit.books import Books
from provider_core.billing.audit.reconcile import reconcile
from provider_core.billing.audit.sources import read_source
from tests.platform.copied_process import LOADS
from tests.platform.replicas import free_port
from tests.platform.scripted_process import ROOT, PlatformProcess, platform_process
from tests.platform.simulator import talk
from tests.platform.test_start import is_open

PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
_NUM_REQUESTS = 3
_POLL_S = 0.02


@asynccontextmanager
async def snapshots() -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """A platform's address, and whether it was asked; what was copied goes on when that is set."""
    asked, may_go_on = asyncio.Event(), asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await may_go_on.wait()
        writer.close()  # as a copy finds it

    async with await asyncio.start_server(take, "127.0.0.1", 0) as platform:
        port = platform.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/checkpoint", asked, may_go_on


@asynccontextmanager
async def copies(folder: Path, url: str) -> AsyncIterator[PlatformProcess]:
    """A server that is copied, with what it logs and what its copy does."""
    info = folder / "copying/copying-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: copying\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[provider_core]\ncopying = tests.platform.copied_process:plugin\n"
    )
    site = (folder / "site", info.parent, ROOT, ROOT / "plugins", ROOT / "handlers")
    environment = {
        "PYTHONPATH": ":".join(map(str, site)),
        "PROVIDER_PLUGINS": "scripted,copying",
        "PROVIDER_SERVER__CHECKPOINT_URL": url,
    }
    async with platform_process(folder, "cloud-run", environment) as server:
        try:
            yield server
        finally:
            for pid in server.descendants:
                os.kill(pid, signal.SIGKILL)


async def test_copies_share_no_identity_and_no_bill(tmp_path: Path) -> None:
    """In one data folder, with the settings and prices of the day on which they go on.

    None of them loads again what was loaded before.
    """
    async with snapshots() as (url, asked, may_go_on), copies(tmp_path, url) as server:
        await asyncio.wait_for(asked.wait(), 20)
        configuration = tmp_path / "provider.toml"
        today = configuration.read_text().replace('"0.000001"', '"0.000003"')
        configuration.write_text(f'server.region = "elsewhere"\n{today}')
        may_go_on.set()
        await server.until(lambda: len(server.addresses) == 2)
        await server.until(lambda: len(lines_of(server, "server.ready")) == 2)
        async with aiohttp.ClientSession() as session:
            streams = await asyncio.gather(
                *(talk(session, url, 3) for url in server.addresses * _NUM_REQUESTS)
            )
        (copy,) = server.descendants
        os.kill(copy, signal.SIGTERM)
        await server.until(lambda: len(lines_of(server, "server.stopped")) == 1)
        assert await server.stop() == 0

    assert server.stderr.count(LOADS) == 1
    assert all(stream.is_whole for stream in streams)
    bills = server.usage
    assert len({bill["generation_id"] for bill in bills}) == 2 * _NUM_REQUESTS
    assert len({bill["request_id"] for bill in bills}) == 2 * _NUM_REQUESTS
    assert len({bill["event_id"] for bill in bills}) == 2 * _NUM_REQUESTS
    of_boots = [bill["boot_id"] for bill in bills]
    assert sorted(map(of_boots.count, set(of_boots))) == [_NUM_REQUESTS, _NUM_REQUESTS]
    assert {bill["prices"]["prompt"] for bill in bills} == {"0.000003"}
    assert {bill["region"] for bill in bills} == {"elsewhere"}
    with Books() as books:
        books.read("journal", read_source(tmp_path / "data/journal"))
        books.read("log", read_source(tmp_path / "log"))
        found = reconcile(books, now_s=time.time(), max_request_s=0)
    assert [finding for finding in found if finding.is_discrepancy] == []


async def test_hooks_of_a_platform_can_take_the_place_of_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page for operators shows: no port before the second, and a server after it."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}", prepend=":")
    monkeypatch.setenv("PROVIDER_PORT", str(port := free_port()))
    monkeypatch.setenv("PROVIDER_PLUGINS", "starter,onnxruntime")
    monkeypatch.chdir(tmp_path)
    hooks = snapshots_of_the_page()
    await asyncio.to_thread(hooks.before)
    try:
        assert not await is_open(port)
        hooks.after()
        async with asyncio.timeout(20):
            while not await is_open(port):  # noqa: ASYNC110 - as a platform does
                await asyncio.sleep(_POLL_S)
    finally:
        hooks.server.terminate()
        assert await asyncio.to_thread(hooks.server.wait) == 0


async def test_the_page_does_not_wait_for_a_server_that_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a one never asks."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}", prepend=":")
    monkeypatch.setenv("PROVIDER_PORT", "many")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="ended with 2"):
        await asyncio.to_thread(snapshots_of_the_page().before)


def snapshots_of_the_page() -> Any:
    """What the page for operators defines."""
    (listing,) = re.findall(r"^```python\n(import os.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    defined: dict[str, Any] = {}
    exec(listing, defined)  # noqa: S102 - our own page
    return defined["Snapshots"]()


def lines_of(server: PlatformProcess, event: str) -> list[dict[str, object]]:
    """Of either of them."""
    return [line for line in server.events if line["event"] == event]

"""The start of a process: what is open when, what is counted, and what is billed."""

import asyncio
import signal
import time
from pathlib import Path

import aiohttp

from tests.platform.contracts import CONTRACTS
from tests.platform.replicas import ProcessReplica, as_process, free_port
from tests.platform.simulator import talk

NAME = "cloud-run"
CONTRACT = CONTRACTS[NAME]
PHASES = (
    "import_ms",
    "settings_ms",
    "plugins_ms",
    "open_ms",
    "listening_ms",
    "fetch_ms",
    "backend_ms",
    "total_ms",
)
_POLL_S = 0.02
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


async def line_of(replica: ProcessReplica, event: str) -> dict[str, object]:
    """A line of the log, once it is there."""
    async with asyncio.timeout(20):
        while True:
            for line in replica.lines():
                if line["event"] == event:
                    return line
            await asyncio.sleep(_POLL_S)


async def is_open(port: int) -> bool:
    """Whether somebody listens."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def test_the_socket_opens_before_the_model_and_each_phase_is_told(tmp_path: Path) -> None:
    """How long each took is in the log; nothing is billed before somebody asks."""
    async with (
        as_process(NAME, CONTRACT, tmp_path) as replica,
        aiohttp.ClientSession() as session,
    ):
        url = f"http://127.0.0.1:{replica.port}"
        async with asyncio.timeout(20):
            while not await is_open(replica.port):  # noqa: ASYNC110 - as a platform does
                await asyncio.sleep(_POLL_S)
        async with session.get(f"{url}/startupz") as reply:
            so_far = await reply.json()
            assert reply.status == 503
        assert "backend_ms" not in so_far  # its model is not loaded, nor will be before it may
        replica.finish_loading()
        ready = await line_of(replica, "server.ready")
        replica.send(CONTRACT.stop_signal)
        assert await replica.ended(CONTRACT.grace_s) == 0
    assert [phase for phase in PHASES if phase not in ready] == []
    assert so_far["listening_ms"] == ready["listening_ms"]
    assert not [line for line in replica.lines() if line["event"] == "usage.final"]
    assert (await line_of(replica, "usage.heartbeat"))["finals"] == 0


async def test_an_environment_that_is_not_named_is_suggested(tmp_path: Path) -> None:
    """By one line of the log, which metrics count; nothing else changes."""
    port = free_port()
    further = {"PROVIDER_PLATFORM": "local", "PROVIDER_PORT": str(port)}
    async with (
        as_process(NAME, CONTRACT, tmp_path, **further) as replica,
        aiohttp.ClientSession() as session,
    ):
        replica.finish_loading()
        line = await line_of(replica, "platform.suggested")
        assert (line["platform"], line["setting"]) == (NAME, "PROVIDER_PLATFORM")
        assert not await is_open(replica.port)  # which is PORT's
        async with session.get(f"http://127.0.0.1:{port}/metrics") as reply:
            page = await reply.text()
    assert 'provider_log_warnings_total{event="platform.suggested"} 1.0' in page


async def test_a_port_that_kubernetes_made_is_ignored_and_said(tmp_path: Path) -> None:
    """It stops no start: the platform's own port is listened on."""
    link = "tcp://10.0.0.7:80"
    async with as_process(NAME, CONTRACT, tmp_path, PROVIDER_PORT=link) as replica:
        line = await line_of(replica, "setting.ignored")
        assert (line["setting"], line["level"]) == ("PROVIDER_PORT", "warning")
        async with asyncio.timeout(20):
            while not await is_open(replica.port):  # noqa: ASYNC110 - as a platform does
                await asyncio.sleep(_POLL_S)


async def test_a_file_that_changes_during_the_start_is_followed_after_it(tmp_path: Path) -> None:
    """One that is half written then ends nothing; what needs another start is named."""
    file = tmp_path / "provider.toml"
    file.write_text('server.region = "before"\n', encoding="utf-8")
    async with as_process(NAME, CONTRACT, tmp_path) as replica:
        async with asyncio.timeout(20):
            while not await is_open(replica.port):  # noqa: ASYNC110 - it has read the file by then
                await asyncio.sleep(_POLL_S)
        file.write_text('server.region = "aft', encoding="utf-8")
        replica.finish_loading()
        line = await line_of(replica, "config.refused")
        assert "provider.toml is not valid TOML" in str(line["error"])
        file.write_text('server.region = "after"\n', encoding="utf-8")
        line = await line_of(replica, "config.restart_needed")
        assert line["settings"] == ["server.region"]
        replica.send(signal.SIGTERM)
        assert await replica.ended(20) == 0


async def test_a_snapshot_is_taken_before_anything_is_open(tmp_path: Path) -> None:
    """No socket, no journal, no key, and an identity of its own for whoever comes out of it."""
    asked = asyncio.Event()
    may_go_on = asyncio.Event()

    async def checkpoint(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await may_go_on.wait()
        writer.close()  # as a copy finds it

    platform = await asyncio.start_server(checkpoint, "127.0.0.1", 0)
    port = platform.sockets[0].getsockname()[1]
    further = {"PROVIDER_SERVER__CHECKPOINT_URL": f"http://127.0.0.1:{port}/checkpoint"}
    async with (
        platform,
        as_process(NAME, CONTRACT, tmp_path, **further) as replica,
        aiohttp.ClientSession() as session,
    ):
        replica.finish_loading()
        await asyncio.wait_for(asked.wait(), 20)
        assert not await is_open(replica.port)
        assert not (tmp_path / "data").exists()
        restored_ms = time.time_ns() // 10**6
        may_go_on.set()
        await line_of(replica, "server.ready")
        stream = await talk(session, f"http://127.0.0.1:{replica.port}", 3)
        assert stream.is_whole
        boot_id = str((await line_of(replica, "usage.final"))["boot_id"])
    events = [line["event"] for line in replica.lines()]
    assert events.index("snapshot.restored") < events.index("server.ready")
    assert _made_ms(boot_id) >= restored_ms


def _made_ms(ulid: str) -> int:
    """When an identifier was made: the first ten of its characters."""
    milliseconds = 0
    for char in ulid[:10]:
        milliseconds = milliseconds * 32 + _CROCKFORD.index(char)
    return milliseconds

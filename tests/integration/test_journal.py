"""The journal under a running server: bills before last bytes, and nobody waits for the disk."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from provider_core import ConfigurationError
from provider_core.billing.journal import Disk, writer
from tests.serving import Serving, saying, scripted_runner, serving
from tests.sse_checker import check_stream

ON = {"enabled": True, "min_free_bytes": 0}


class GatedDisk(Disk):
    """Syncs when a test lets it."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.is_syncing = threading.Event()

    def sync(self, fd: int) -> None:
        """Wait for the test."""
        self.is_syncing.set()
        self.gate.wait(30)
        super().sync(fd)


class TickedDisk(Disk):
    """Each sync lasts for so many rounds of the event loop, while they are counted.

    Attributes:
        num_syncs: Those that lasted.
        is_stalled: The loop did not go round in one of them.
    """

    NUM_ROUNDS = 50

    def __init__(self) -> None:
        self.num_syncs = 0
        self.is_stalled = False
        self._num_rounds = 0
        self._is_counting = False
        self._ticked = threading.Condition()

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[None]:
        """Count rounds of the running loop."""
        self._is_counting = True
        counting = asyncio.create_task(self._count())
        yield
        counting.cancel()
        with self._ticked:
            self._is_counting = False
            self._ticked.notify_all()

    async def _count(self) -> None:
        while True:
            with self._ticked:
                self._num_rounds += 1
                self._ticked.notify_all()
            await asyncio.sleep(0)

    def sync(self, fd: int) -> None:
        """Wait for the loop, which is not to wait for this."""
        with self._ticked:
            if self._is_counting:
                last = self._num_rounds + self.NUM_ROUNDS
                self.num_syncs += 1
                self.is_stalled |= not self._ticked.wait_for(
                    lambda: self._num_rounds >= last or not self._is_counting, timeout=10
                )
                if self.is_stalled:
                    self._is_counting = False
        super().sync(fd)


class FullDisk(Disk):
    """Full while a test says so."""

    def __init__(self) -> None:
        self.is_full = False

    def create(self, path: Path) -> int:
        """Refuse when full."""
        self._check()
        return super().create(path)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Refuse when full."""
        self._check()
        return super().write(fd, data)

    def _check(self) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def ready(served: Serving) -> tuple[int, Any]:
    """What `/readyz` says."""
    async with served.session.get(served.url + "/readyz") as response:
        return response.status, (await response.json()).get("reason")


def problem(served: Serving) -> str | None:
    """What the journal says of itself."""
    assert served.server.journal is not None
    return served.server.journal.problem


def read_all(folder: Path) -> bytes:
    """Every byte of the journal."""
    return b"".join(path.read_bytes() for path in folder.glob("*.jnl"))


async def open_stream(served: Serving, **fields: Any) -> aiohttp.ClientResponse:
    """A stream whose headers have come."""
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "test-model", "messages": messages, "stream": True, **fields}
    return await served.session.post(served.url + "/v1/chat/completions", json=body)


async def test_streamed_and_whole_answers_are_durable_and_sent(tmp_path: Path) -> None:
    """I6 and I9: by the time an answer ended its bill was on disk, and the log says so."""
    async with serving(journal={**ON, "dir": tmp_path}) as served:
        whole, streamed = await served.chat(), await served.chat(stream=True)
        assert whole.status == streamed.status == 200
        assert check_stream(await streamed.read()).texts == {0: "Hello!"}
        on_disk = read_all(tmp_path)
        for response in (whole, streamed):
            assert f'{response.headers["X-Generation-Id"]}:final"'.encode() in on_disk
        await served.wait_until(lambda: len(served.usage.lines) == 2)
        async with served.session.get(served.url + "/metrics") as scraped:
            page = await scraped.text()
        events = served.usage.events
    assert "provider_journal_up 1.0" in page
    assert "provider_journal_log_blocked_seconds 0.0" in page
    assert "provider_journal_unemitted_events" in page
    assert [event["seq"] for event in events] == [1, 2]
    assert {(event["durable"], event["delivery"]) for event in events} == {(True, "sent")}
    assert served.usage.events[-1]["closing"] is True


@pytest.mark.parametrize("stream", [False, True])
async def test_b6_a_sync_that_takes_long_keeps_one_answer_and_no_other(
    stream: bool,  # noqa: FBT001
) -> None:
    """The end of an answer waits for its bill; tokens of others flow, and no bill is skipped."""
    disk = GatedDisk()
    runner = scripted_runner(step_time_s=0.001)
    async with serving(runner, journal=ON, disk=disk, max_model_len=32768) as served:
        other = await open_stream(served, ignore_eos=True, max_tokens=30000)
        disk.gate.clear()
        disk.is_syncing.clear()
        ending = asyncio.create_task(served.chat(stream=stream, ignore_eos=True, max_tokens=2))
        await served.wait_until(disk.is_syncing.is_set)
        for _ in range(50):
            assert b"data: " in await other.content.readline() + await other.content.readline()
        assert not ending.done()
        disk.gate.set()
        response = await ending
        assert response.status == 200
        if stream:
            assert (await response.read()).endswith(b"data: [DONE]\n\n")
        other.close()
        await served.settled()


async def test_b6_no_sync_stalls_the_event_loop() -> None:
    """While one lasts the loop goes round, whatever admits, ends and leaves meanwhile."""
    disk = TickedDisk()
    async with serving(journal=ON, disk=disk) as served, disk.counting():
        for _ in range(3):
            leaving = await open_stream(served, ignore_eos=True, max_tokens=1000)
            answers = await asyncio.gather(
                *(served.chat(stream=stream) for stream in (False, True, False, True))
            )
            leaving.close()
            assert {answer.status for answer in answers} == {200}
            assert all([await answer.read() for answer in answers])
        await served.settled()
    assert disk.num_syncs >= 3
    assert not disk.is_stalled


async def test_b6_a_disk_that_does_not_answer_degrades_readiness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a while `/readyz` says 503 and new requests too; then all is well again."""
    monkeypatch.setattr(writer, "_STALLED_S", 0.01)
    disk = GatedDisk()
    async with serving(journal=ON, disk=disk) as served:
        disk.gate.clear()
        ending = asyncio.create_task(served.chat())
        reason = "the journal's disk does not answer"
        await served.wait_until(lambda: problem(served) == reason)
        assert await ready(served) == (503, reason)
        refused = await served.chat()
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        assert (await refused.json())["error"]["code"] == "billing_unavailable"
        monkeypatch.undo()  # a loaded machine's disk takes long, too
        disk.gate.set()
        assert (await ending).status == 200
        assert (await ready(served))[0] == 200


async def test_b4_running_requests_end_and_new_ones_wait_for_room() -> None:
    """A full disk: answers end, their lines say `durable: false`, and room mends everything."""
    disk = FullDisk()
    go_on = threading.Event()
    async with serving(
        saying("Hello!", on_execute=lambda _: go_on.wait(30)), journal=ON, disk=disk
    ) as served:
        running = asyncio.create_task(served.chat())
        await served.wait_until(lambda: bool(served.server.dispatcher.runs))
        disk.is_full = True
        go_on.set()
        assert (await running).status == 200
        status, reason = await ready(served)
        assert (status, "No space left" in reason) == (503, True)
        assert (await served.chat()).status == 503
        await served.wait_until(lambda: bool(served.usage.lines))
        assert served.usage.events[0]["durable"] is False
        disk.is_full = False
        await served.wait_until(lambda: problem(served) is None)
        assert (await served.chat()).status == 200


async def test_a_client_that_leaves_before_its_answer_does_pays_nothing(tmp_path: Path) -> None:
    """Between the bill and the last bytes: R5 takes the bill of a whole answer back."""
    disk = GatedDisk()
    async with serving(journal={**ON, "dir": tmp_path}, disk=disk) as served:
        disk.gate.clear()
        disk.is_syncing.clear()
        leaving = asyncio.create_task(served.chat())
        await served.wait_until(disk.is_syncing.is_set)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        disk.gate.set()
        await served.wait_until(lambda: len(served.usage.lines) == 2)
        final, adjustment = served.usage.events
    assert (final["status"], final["delivery"]) == ("ok", "failed")
    assert (adjustment["event"], adjustment["cost_delta"]) == (
        "usage.adjustment",
        "-" + final["cost"],
    )


@pytest.mark.parametrize("enabled", [True, False])
async def test_admissions_are_logged_if_the_operator_asks(*, enabled: bool) -> None:
    """With a journal and without, each before its bill."""
    async with serving(journal={"enabled": enabled, "min_free_bytes": 0, "log_open": True}) as it:
        assert (await it.chat()).status == 200
        await it.wait_until(lambda: len(it.usage.lines) == 2)
        admission, final = it.usage.events
    assert (admission["event"], final["event"]) == ("usage.open", "usage.final")
    assert admission["generation_id"] == final["generation_id"]


async def test_a_start_without_a_journal_says_how_to_waive_it(tmp_path: Path) -> None:
    """Nothing is served on a folder that keeps nothing, unless the operator says so."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="PROVIDER_JOURNAL__ENABLED=false"):
        async with serving(journal={**ON, "dir": tmp_path / "file"}):
            pass
    async with serving(journal={"enabled": False, "dir": tmp_path / "file"}) as served:
        assert (await served.chat()).status == 200
        assert served.usage.events[0]["durable"] is False

"""Clients that leave: the slot is free within a step, and the usage line is written anyway."""

import asyncio
import json
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any
from unittest.mock import Mock, patch

import aiohttp
import pytest

from provider_core.interfaces import Batch
from tests.serving import KEY, Serving, scripted_runner, serving

LONG: dict[str, Any] = {"max_tokens": 2000, "ignore_eos": True}


class Gate:
    """Lets a runner's steps through one by one."""

    def __init__(self) -> None:
        self.is_open = True
        self.num_steps = 0
        self._steps = threading.Semaphore(0)

    def __call__(self, _: Batch) -> None:
        """Wait for permission, before each call of the runner."""
        self.num_steps += 1
        if not self.is_open:
            self._steps.acquire()

    def let(self, steps: int) -> None:
        """Allow so many calls."""
        self._steps.release(steps)


async def open_stream(served: Serving, **fields: Any) -> aiohttp.ClientResponse:
    """Begin a long streamed chat and read its first bytes."""
    response = await served.session.post(
        served.url + "/v1/chat/completions",
        json={
            "model": "test-model",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            **LONG,
            **fields,
        },
    )
    assert response.status == 200
    await response.content.readany()
    return response


async def test_bug_14_a_cancelled_stream_frees_its_slot_within_one_step() -> None:
    """After the client's FIN the runner is called at most once more."""
    gate = Gate()
    async with serving(scripted_runner(on_execute=gate)) as served:
        response = await open_stream(served)
        gate.is_open = False
        model = served.server.models.find("test-model")
        response.close()
        await served.wait_until(lambda: not served.server.dispatcher.runs)
        steps = gate.num_steps
        gate.let(1)  # the step that was under way when the client left
        await served.wait_until(lambda: model.engine.load().num_running == 0)
        assert gate.num_steps <= steps + 1
        gate.is_open = True
        gate.let(10)
        assert (await served.chat(max_tokens=1)).status == 200


async def test_bug_24_a_cancelled_stream_is_counted_and_marked() -> None:
    """One line: cancelled, with what was handed over, never more than was generated."""
    async with serving(scripted_runner(step_time_s=0.001)) as served:
        response = await open_stream(served)
        for _ in range(5):
            await response.content.readany()
        response.close()
        await served.settled()
        (event,) = served.usage.events
    assert event["status"] == "cancelled"
    assert event["cancelled"] is True
    assert event["cancel_stage"] == "decode"
    assert event["http_status"] == 200  # it was out when the client left
    assert event["finish_reason"] is None
    assert 5 <= event["completion_tokens"] <= event["generated_tokens"]
    assert event["cost"] != "0"


async def test_a_client_that_leaves_a_whole_request_cancels_it() -> None:
    """Without a stream nothing was handed over, so nothing of the completion is charged."""
    gate = Gate()
    gate.is_open = False
    async with serving(scripted_runner(on_execute=gate)) as served:
        request = asyncio.create_task(served.chat(**LONG))
        await served.wait_until(lambda: gate.num_steps == 1)
        request.cancel()
        with suppress(asyncio.CancelledError):
            await request
        await served.wait_until(lambda: not served.server.dispatcher.runs)
        gate.is_open = True
        gate.let(10)
        await served.settled()
        (event,) = served.usage.events
    assert event["status"] == "cancelled"
    assert event["http_status"] == 499
    assert event["cancel_stage"] == "prefill"


async def test_a_client_that_leaves_while_waiting_takes_no_slot() -> None:
    """A queued request whose client left is never run."""
    gate = Gate()
    gate.is_open = False
    async with serving(scripted_runner(on_execute=gate), max_num_seqs=1) as served:
        first = asyncio.create_task(served.chat(**LONG))
        await served.wait_until(lambda: gate.num_steps == 1)
        second = asyncio.create_task(served.chat(**LONG))
        await served.wait_until(lambda: len(served.server.dispatcher.runs) == 2)
        for request in (second, first):
            request.cancel()
            with suppress(asyncio.CancelledError):
                await request
        await served.wait_until(lambda: not served.server.dispatcher.runs)
        gate.is_open = True
        gate.let(10)
        await served.settled()
        assert gate.num_steps == 1
        assert [event["status"] for event in served.usage.events] == ["cancelled"] * 2


@pytest.mark.parametrize("num_requests", [200, pytest.param(1000, marks=pytest.mark.soak)])
async def test_many_requests_leave_nothing_behind(num_requests: int) -> None:
    """Tasks, slots and descriptors return to where they were; one usage line per request."""
    async with serving(scripted_runner()) as served:
        await served.chat(max_tokens=2)
        tasks, descriptors = len(asyncio.all_tasks()), _num_descriptors()
        crowd = asyncio.Semaphore(16)

        async def one(i: int) -> None:
            async with crowd:
                if i % 3 == 0:
                    (await open_stream(served)).close()
                else:
                    assert (await served.chat(max_tokens=3, stream=i % 3 == 1)).status == 200

        await asyncio.gather(*(one(i) for i in range(num_requests)))
        await served.settled()
        await served.session.close()
        await served.wait_until(lambda: _num_descriptors() <= descriptors)
        await served.wait_until(lambda: len(asyncio.all_tasks()) <= tasks)
        events = served.usage.events
        assert len(events) == num_requests + 1
        assert len({event["event_id"] for event in events}) == len(events)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert all(model.num_open == 0 for model in served.server.models)


def _num_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the kernel's own list


@pytest.mark.parametrize("first_bytes", [1, 40_000])
async def test_what_was_never_written_to_a_stalled_client_is_not_counted(first_bytes: int) -> None:
    """The engine may run ahead of a client that does not read; the bill does not.

    Neither where it stops in mid-stream, nor where it does not read the first event to its end.
    """
    async with serving(
        scripted_runner(), max_model_len=44_000, limits={"write_buffer_bytes": 2048}
    ) as served:
        client = await _stalled_stream(served, prompt="x" * first_bytes, echo=True, max_tokens=3000)
        model = served.server.models.find("test-model")
        await served.wait_until(lambda: model.engine.load().num_generated_tokens == 3000)
        client.transport.abort()
        await served.settled()
        (event,) = served.usage.events
    assert event["status"] == "cancelled"
    assert event["cancel_stage"] == "delivery"
    assert event["generated_tokens"] == 3000
    assert 0 < event["completion_tokens"] < 3000


async def test_a_client_that_reads_late_gets_everything() -> None:
    """Nothing is lost or reordered by the pause."""
    async with serving(
        scripted_runner(), max_model_len=4096, limits={"write_buffer_bytes": 2048}
    ) as served:
        client = await _stalled_stream(served, max_tokens=2000)
        model = served.server.models.find("test-model")
        await served.wait_until(lambda: model.engine.load().num_generated_tokens == 2000)
        client.transport.resume_reading()
        body = await client.reader.readuntil(b"\r\n0\r\n\r\n")
        await served.settled()
        (event,) = served.usage.events
        client.transport.close()
    assert b"data: [DONE]" in body
    assert (event["status"], event["completion_tokens"]) == ("ok", 2000)


async def test_a_client_that_reads_nothing_is_cut() -> None:
    """After `write_stall_s` without a byte; one that half-closes while it is full, at once."""
    async with serving(
        scripted_runner(),
        max_model_len=4096,
        limits={"write_buffer_bytes": 2048, "write_stall_s": 0.2},
    ) as served:
        client = await _stalled_stream(served, max_tokens=3000)
        await served.wait_until(lambda: bool(served.usage.events))
        assert served.usage.events[0]["status"] == "cancelled"
        client.transport.abort()
        await served.settled()


async def test_a_client_that_reads_nothing_does_not_use_up_the_grace() -> None:
    """It is cut early enough for the journal to be closed within it."""
    grace_s = 3.2
    async with serving(
        scripted_runner(),
        journal={"enabled": True},
        server={"grace_s": grace_s},
        limits={"write_buffer_bytes": 2048},
    ) as served:
        client = await _stalled_stream(served, prompt="x", max_tokens=2000)
        engine = served.server.models.find("test-model").engine
        await served.wait_until(lambda: engine.load().num_generated_tokens == 2000)
        journal = served.server.journal
        assert journal is not None
        closed_s: list[float] = []
        with patch.object(journal, "close", lambda _: closed_s.append(monotonic())):
            began_s = monotonic()
            await served.server.drain()
        assert closed_s[0] - began_s < grace_s
        journal.close(1.0)
        client.transport.abort()
        assert [event["status"] for event in served.usage.events if "status" in event] == ["error"]


async def test_a_drain_waits_for_clients_to_read_what_is_ready() -> None:
    """An answer is served when it is read, not when it is made."""
    async with serving(
        scripted_runner(), max_model_len=301_000, limits={"write_buffer_bytes": 2048}
    ) as served:
        client = await _stalled_stream(
            served, prompt="x" * 300_000, echo=True, stream=False, max_tokens=1
        )
        await served.wait_until(lambda: bool(served.usage.events))
        has_read = False
        read_at_close: list[bool] = []
        close = served.server.close

        async def note_close() -> None:
            read_at_close.append(has_read)
            await close()

        is_busy = Mock(wraps=served.server._is_busy)
        with patch.multiple(served.server, close=note_close, _is_busy=is_busy):
            draining = asyncio.create_task(served.server.drain())
            await served.wait_until(lambda: is_busy.call_count > 1)
            has_read = True
            client.transport.resume_reading()
            body = await client.reader.read()
            await draining
        client.transport.close()
    assert body.count(b"x") >= 300_000
    assert read_at_close == [True]


@dataclass
class _Raw:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter  # closes its connection when it is forgotten

    @property
    def transport(self) -> asyncio.Transport:
        assert isinstance(self.writer.transport, asyncio.Transport)
        return self.writer.transport


async def _stalled_stream(served: Serving, **fields: Any) -> _Raw:
    """Ask for a long stream over a connection with a small window, and read nothing."""
    for listening in served.server._listeners.sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)  # noqa: FBT003 - the socket module takes no keyword
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", served.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=2**26)
    client = _Raw(reader, writer)
    client.transport.pause_reading()
    body = json.dumps(
        {"model": "test-model", "prompt": "x", "stream": True, "ignore_eos": True, **fields}
    )
    writer.write(
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return client

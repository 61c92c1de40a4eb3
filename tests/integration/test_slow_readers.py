"""Clients that read late: they get everything, in order, and hold little memory meanwhile."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from unittest.mock import patch

import pytest

from provider_core.server import models
from tests.serving import KEY, Serving, saying, serving
from tests.sse_checker import check_stream

TEXT = "".join(f"{index:04d} " for index in range(100))  # 500 tokens


async def read_late(
    served: Serving, before: Callable[[], Awaitable[None]] | None = None, **fields: object
) -> bytes:
    """The events of a stream of which nothing is read before the model has finished.

    Args:
        served: The server.
        before: What comes between the model's end and the reading.
        **fields: Of the request.
    """
    served.server._listeners.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.connect(("127.0.0.1", served.port))  # the kernel accepts; the loop need not turn
    reader, writer = await asyncio.open_connection(sock=sock, limit=1)
    body = json.dumps({"model": "test-model", "stream": True, "max_tokens": 600, **fields}).encode()
    head = ["POST /v1/completions HTTP/1.0", "Host: a", f"Content-Length: {len(body)}"]
    head += [f"Authorization: Bearer {KEY}", "Content-Type: application/json"]
    writer.write("\r\n".join([*head, "", ""]).encode() + body)
    engine = served.server.models.find("test-model").engine
    await served.wait_until(lambda: engine.load().num_generated_tokens > 0)
    await served.wait_until(lambda: engine.load().num_running == 0)
    if before is not None:
        await before()
    data = await reader.read()
    writer.close()
    return data.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("buffer_bytes", [1024, 65_536])
async def test_a_late_reader_gets_every_token_in_order(buffer_bytes: int) -> None:
    """What did not fit is kept as text and sent when there is room."""
    limits = {"write_buffer_bytes": buffer_bytes}
    async with serving(saying(TEXT), limits=limits) as served:
        stream = check_stream(await read_late(served, prompt="hi"), kind="completion")
    assert stream.texts == {0: TEXT}


async def test_a_late_reader_does_not_keep_a_removed_model() -> None:
    """It gets every token of an engine that is gone; whoever replaces the model need not wait."""
    limits = {"write_buffer_bytes": 1024}
    with patch.object(models, "_PREPARING_S", 0.1):
        async with serving(saying(TEXT), limits=limits) as served:
            remove = partial(served.server.models.remove, "test-model")
            stream = check_stream(await read_late(served, remove, prompt="hi"), kind="completion")
            await served.wait_until(lambda: bool(served.usage.events))
    assert stream.texts == {0: TEXT}
    assert [event["status"] for event in served.usage.events] == ["ok"]


async def test_a_long_first_event_loses_nothing_behind_it() -> None:
    """An echo larger than the connection's buffer holds the tokens up, no more."""
    prompt = "p" * 100_000
    async with serving(saying(TEXT), max_model_len=101_000, max_num_seqs=1) as served:
        stream = check_stream(await read_late(served, prompt=prompt, echo=True), kind="completion")
    assert stream.texts[0] == prompt + TEXT


async def test_a_first_event_that_nobody_reads_is_cut() -> None:
    """Also before the stream has really begun, the stall has its limit."""
    limits = {"write_stall_s": 0.2}
    async with serving(
        saying(TEXT, step_time_s=0.005), max_model_len=101_000, max_num_seqs=1, limits=limits
    ) as served:
        served.server._listeners.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.connect(("127.0.0.1", served.port))
            fields = {"model": "test-model", "prompt": "p" * 100_000, "echo": True, "stream": True}
            body = json.dumps({**fields, "max_tokens": 500}).encode()
            head = ["POST /v1/completions HTTP/1.1", "Host: a", f"Content-Length: {len(body)}"]
            head += [f"Authorization: Bearer {KEY}", "Content-Type: application/json"]
            sock.settimeout(30)
            await asyncio.to_thread(sock.sendall, "\r\n".join([*head, "", ""]).encode() + body)
            await served.wait_until(lambda: bool(served.usage.events))
            await served.settled()
        assert served.usage.events[0]["status"] == "cancelled"

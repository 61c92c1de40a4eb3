"""Sending a stream's events several at a time: RunPod takes each piece in a request of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import StreamReader

_EVENT_END = b"\n\n"


async def coalesce(stream: StreamReader, *, window_s: float, max_bytes: int) -> AsyncIterator[str]:
    """Whole events of a stream: the first at once, then what comes within a window.

    What arrives while the consumer is busy is in the next piece without any window.

    Args:
        stream: Of server-sent events; nothing else reads it.
        window_s: Longest wait for more once there is something.
        max_bytes: So many make a piece before that.

    Yields:
        Text, cut between events only; the last piece is whatever is left.
    """
    loop = asyncio.get_running_loop()
    buffer = b""
    wait_s = 0.0
    while chunk := await stream.readany():
        buffer += chunk
        with suppress(TimeoutError):
            async with asyncio.timeout_at(loop.time() + wait_s):
                while len(buffer) < max_bytes and (chunk := await stream.readany()):
                    buffer += chunk
        events, end, rest = buffer.rpartition(_EVENT_END)
        if end:
            yield (events + end).decode()
            buffer, wait_s = rest, window_s
    if buffer:
        yield buffer.decode()

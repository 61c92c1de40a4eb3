"""A load generator that costs little itself: raw sockets, no JSON parsing of the stream."""

import asyncio
import json
from dataclasses import dataclass, field
from time import perf_counter


@dataclass(slots=True)
class Reply:
    """What one streamed request showed from outside.

    Attributes:
        ttft_s: From the request's last byte to the first content event.
        total_s: To the end of the response.
        num_events: Content events.
        gaps_s: Between consecutive reads that held content.
    """

    ttft_s: float = 0.0
    total_s: float = 0.0
    num_events: int = 0
    gaps_s: list[float] = field(default_factory=list)


async def stream_chat(host: str, port: int, key: str, body: dict[str, object]) -> Reply:
    """Send one streamed chat request and read it to its end.

    Raises:
        RuntimeError: The answer is not a complete stream.
    """
    reader, writer = await asyncio.open_connection(host, port)
    payload = json.dumps({**body, "stream": True}).encode()
    writer.write(
        (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(payload)}\r\n\r\n"
        ).encode()
        + payload
    )
    reply = Reply()
    started = last = perf_counter()
    tail = b""
    head = b""
    while True:
        data = await reader.read(65536)
        now = perf_counter()
        if not data:
            raise RuntimeError(f"connection closed early: {(head + tail)[-300:]!r}")
        head = head or data[:300]
        events = (tail[-10:] + data).count(b'"content":"') - tail[-10:].count(b'"content":"')
        if events:
            # The first event only says who speaks and comes with the first token's.
            if not reply.ttft_s:
                reply.ttft_s = now - started
            else:
                reply.gaps_s.append(now - last)
            last = now
            reply.num_events += events
        tail = (tail + data)[-64:]
        if tail.endswith(b"\r\n0\r\n\r\n"):  # an id in the headers may end in 0, too
            break
    reply.total_s = perf_counter() - started
    writer.close()
    if b"[DONE]" not in tail:
        raise RuntimeError(f"no [DONE]: {head!r} ... {tail!r}")
    return reply

"""Server-sent events, written straight to the transport.

A token must not cost a task switch: events arrive by callback from the engine's step and leave by
one `transport.write` each. aiohttp prepares the response and ends it; in between this module frames
the chunks of `Transfer-Encoding: chunked` (RFC 9112 section 7.1) itself.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web

_STALL_POLL_S = 0.05

KEEPALIVE = b": keep-alive\n\n"

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # tells nginx-like proxies to pass every event on at once
}


class SseWriter:
    """One stream of events to one client.

    Until `open` what is written is kept, so that a failure before the first event still has a
    status of its own. A client that does not read is noticed when the unsent bytes pass
    `buffer_limit`: `is_full` then asks whoever writes to wait for `on_drained`.

    Args:
        request: The request to answer.
        keepalive_s: Silence before a comment is sent.
        stall_s: A client that leaves the buffer full for this long is cut.
        buffer_limit: Unsent bytes from which the stream is full.
        on_drained: Called when it no longer is.

    Attributes:
        is_full: The client does not read as fast as we write.
        num_sent_bytes: Of the body, without framing.
    """

    def __init__(
        self,
        request: web.Request,
        *,
        keepalive_s: float,
        stall_s: float,
        buffer_limit: int,
        on_drained: Callable[[], None],
    ) -> None:
        self.response = web.StreamResponse(headers=HEADERS)
        self.is_full = False
        self.num_sent_bytes = 0
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._keepalive_s = keepalive_s
        self._stall_s = stall_s
        self._buffer_limit = buffer_limit
        self._on_drained = on_drained
        self._pending: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._is_chunked = True
        self._timer: asyncio.TimerHandle | None = None
        self._has_written = False  # since the keep-alive timer last looked
        self._full_since_s = 0.0

    async def open(self) -> None:
        """Send the headers and what was written so far, or a comment if nothing was."""
        response = self.response
        self._is_chunked = self._request.version >= (1, 1)
        if self._is_chunked:
            response.enable_chunked_encoding()
        else:
            response.force_close()
        try:
            async with asyncio.timeout(self._stall_s):
                await response.prepare(self._request)
                first = self._take_pending() or KEEPALIVE
                await response.write(first)  # flushes the headers in the same packet
        except TimeoutError:
            self._cut()
            return
        self.num_sent_bytes += len(first)
        self._transport = self._request.transport
        if self._pending:  # a long first write had to wait, and events came meanwhile
            self.write(self._take_pending())
        self._timer = self._loop.call_later(self._keepalive_s, self._keep_alive)

    def write(self, event: bytes) -> bool:
        """Write one or more complete events; `False` once the client is gone."""
        transport = self._transport
        if transport is None:
            self._pending.append(event)
            return True
        if transport.is_closing():
            return False
        transport.write(b"%x\r\n%b\r\n" % (len(event), event) if self._is_chunked else event)
        self._has_written = True
        self.num_sent_bytes += len(event)
        if not self.is_full and transport.get_write_buffer_size() > self._buffer_limit:
            self.is_full = True
            self._full_since_s = self._loop.time()
            self._loop.call_later(_STALL_POLL_S, self._watch_reader)
        return True

    async def close(self, last: bytes) -> None:
        """Write the last events and end the response, within `stall_s` of a client that reads."""
        self.abandon()
        self.num_sent_bytes += len(last)
        try:
            async with asyncio.timeout(self._stall_s):
                await self.response.write_eof(last)
        except TimeoutError:
            self._cut()

    def _take_pending(self) -> bytes:
        pending = b"".join(self._pending)
        self._pending.clear()
        return pending

    def abandon(self) -> None:
        """Send no more keep-alives."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _keep_alive(self) -> None:
        if not self._has_written:
            self.write(KEEPALIVE)
        self._has_written = False
        self._timer = self._loop.call_later(self._keepalive_s, self._keep_alive)

    def _watch_reader(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() <= self._buffer_limit // 2:
            self.is_full = False
            self._on_drained()
        elif self._loop.time() - self._full_since_s > self._stall_s:
            self._cut()
        else:
            self._loop.call_later(_STALL_POLL_S, self._watch_reader)

    def _cut(self) -> None:
        """Give the client up: the connection's loss cancels the request."""
        transport = self._request.transport
        if transport is not None:
            transport.abort()

"""Server-sent events, written straight to the transport.

A token must not cost a task switch: events arrive by callback from the engine's step and leave by
one `transport.write` each. aiohttp prepares the response and ends it; in between this module frames
the chunks of `Transfer-Encoding: chunked` (RFC 9112 section 7.1) itself.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web

from provider_core.server.connection import GuardedConnection


def stream_headers(media_type: str) -> dict[str, str]:
    """The headers of a stream that are the same for every request."""
    return {
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",  # tells nginx-like proxies to pass every event on at once
        "Content-Type": f"{media_type}; charset=utf-8",
    }


class SseWriter:
    """One stream of events to one client.

    Until `open` what is written is kept, so that a failure before the first event still has a
    status of its own. `open` ends with a call of `on_full` that says whether the client reads; the
    connection notices when that changes, and calls again.

    Args:
        request: The request to answer.
        media_type: Of the stream.
        keepalive: Bytes that a client of this dialect takes and that say nothing.
        keepalive_s: Silence before they are sent.
        on_full: Told `True` to stop and `False` to go on writing.

    Attributes:
        response: What the route returns.
        num_sent_bytes: Of the body, without framing.
    """

    def __init__(
        self,
        request: web.Request,
        *,
        media_type: str,
        keepalive: bytes,
        keepalive_s: float,
        on_full: Callable[[bool], None],
    ) -> None:
        self.response = web.StreamResponse(headers=stream_headers(media_type))
        self.num_sent_bytes = 0
        self._request = request
        self._connection = request.protocol
        self._loop = asyncio.get_running_loop()
        self._keepalive = keepalive
        self._keepalive_s = keepalive_s
        self._on_full = on_full
        self._pending: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._is_chunked = True
        self._timer: asyncio.TimerHandle | None = None
        self._has_written = False  # since the keep-alive timer last looked

    async def open(self) -> None:
        """Send the headers and what was written so far, or a keep-alive if nothing was."""
        response = self.response
        self._is_chunked = self._request.version >= (1, 1)
        if self._is_chunked:
            response.enable_chunked_encoding()
        else:
            response.force_close()
        await response.prepare(self._request)
        first = self._take_pending() or self._keepalive
        await response.write(first)  # flushes the headers in the same packet
        self.num_sent_bytes += len(first)
        self._transport = self._request.transport
        if self._pending:  # the first write had to wait, and events came meanwhile
            self.write(self._take_pending())
        if isinstance(self._connection, GuardedConnection):
            self._connection.tell_when_full(self._on_full)
        else:
            self._on_full(False)  # noqa: FBT003 - a callback has no names
        self._timer = self._loop.call_later(self._keepalive_s, self._keep_alive)

    def write(self, event: bytes) -> bool:
        """Write complete events, if there are any; `False` once the client is gone."""
        if not event:  # an empty chunk would end the response
            return True
        transport = self._transport
        if transport is None:
            self._pending.append(event)
            return True
        if transport.is_closing():
            return False
        transport.write(b"%x\r\n%b\r\n" % (len(event), event) if self._is_chunked else event)
        self._has_written = True
        self.num_sent_bytes += len(event)
        return True

    async def close(self, last: bytes) -> None:
        """Write the last events and end the response."""
        self.abandon()
        self.num_sent_bytes += len(last)
        await self.response.write_eof(last)

    def abandon(self) -> None:
        """Send no more keep-alives, and listen no more."""
        if isinstance(self._connection, GuardedConnection):
            self._connection.tell_when_full(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take_pending(self) -> bytes:
        pending = b"".join(self._pending)
        self._pending.clear()
        return pending

    def _keep_alive(self) -> None:
        if not self._has_written:
            self.write(self._keepalive)
        self._has_written = False
        self._timer = self._loop.call_later(self._keepalive_s, self._keep_alive)

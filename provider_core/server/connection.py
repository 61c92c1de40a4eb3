"""Connections as the open internet needs them: what aiohttp leaves to a proxy in front.

`GuardedConnection` adds to aiohttp's `RequestHandler` a time limit on incomplete headers and on
clients that do not read, a cap on connections, and JSON bodies for every failure, also for bytes
that are no HTTP at all. It speaks OpenAI's error shape: a malformed request has no path that could
tell the dialect.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy, RawRequestMessage
from aiohttp.streams import StreamReader

from provider_core.billing.identifiers import make_request_id
from provider_core.dialects.openai.errors import encode_error
from provider_core.errors import (
    ConfigurationError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    ProviderError,
    RequestTimeout,
    RequestTooLarge,
)
from provider_core.server.stalls import StallWatch
from provider_core.settings import LimitSettings

log = structlog.get_logger()

SERVER = "provider-core"  # in place of aiohttp's, which tells versions
_LINGERING_S = 2.0  # how long a refused request is read and thrown away, so that the answer arrives


class HttpFailure(InvalidRequest):
    """A failure aiohttp found itself; carries its status."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message, code=code)
        self.status = status  # type: ignore[misc]  # the one class whose status is per instance


def from_http_exception(exc: web.HTTPException) -> ProviderError:
    """Translate what aiohttp's router raises."""
    match exc.status:
        case 404:
            return NotFound("no such path")
        case 405:
            return MethodNotAllowed("method not allowed for this path")
        case 413:
            return RequestTooLarge("request body is too large")
        case 417:
            return HttpFailure("unknown expectation", status=417, code="expectation_failed")
        case status:
            phrase = HTTPStatus(status).phrase.lower()
            return HttpFailure(phrase, status=status, code="bad_http")


def error_response(exc: ProviderError) -> web.Response:
    """An error as a whole response in OpenAI's shape, for a request that no middleware saw."""
    status, headers, body = encode_error(exc, make_request_id())
    return web.Response(status=status, headers={**headers, "Server": SERVER}, body=body)


def raw_error(exc: ProviderError) -> bytes:
    """An error as bytes for a connection on which no request was understood; it is then closed."""
    status, headers, body = encode_error(exc, make_request_id())
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


class GuardedConnection(web.RequestHandler):
    """One client connection."""

    __slots__ = (
        "_headers_timeout_s",
        "_headers_timer",
        "_is_malformed",
        "_last_body",
        "_lingering",
        "_on_full",
        "_others",
        "_stall_watch",
        "_write_buffer_bytes",
    )

    def __init__(
        self,
        server: web.Server,
        others: "OpenConnections",
        limits: LimitSettings,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None turns it off; we write our own line
            keepalive_timeout=limits.keepalive_timeout_s,
            lingering_time=min(_LINGERING_S, limits.body_timeout_s),
            auto_decompress=False,  # an encoded body is a 415, so no bomb is ever unpacked
        )
        self._others = others
        self._headers_timeout_s = limits.headers_timeout_s
        self._headers_timer: asyncio.TimerHandle | None = None
        self._write_buffer_bytes = limits.write_buffer_bytes
        self._stall_watch = StallWatch(loop, limits.write_stall_s)
        self._on_full: Callable[[bool], None] | None = None
        self._last_body: StreamReader | None = None  # of the newest request
        self._is_malformed = False
        self._lingering: asyncio.Transport | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it has no request, or none whose headers are complete."""
        return not self._request_in_progress and not self._messages

    @property
    def idle_until_s(self) -> float:
        """When an idle one will be closed, on the loop's clock: the longest idle comes first."""
        return self._next_keepalive_close_time

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection; refuse it when there are too many."""
        super().connection_made(transport)
        if isinstance(transport, asyncio.WriteTransport):
            transport.set_write_buffer_limits(high=self._write_buffer_bytes)
        if not self._others.admit(self):
            self._refuse(Overloaded("too many connections; try again later", retry_after_s=1))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._disarm()
        self._stall_watch.stop()
        self._lingering = None
        self._others.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; time a request whose headers began and did not end."""
        seen = self._request_count
        was_in_body = self._last_body is not None and not self._last_body.is_eof()
        super().data_received(data)
        if self._request_count != seen:
            self._disarm()
            if self._messages:
                self._see_message(*self._messages[-1])
        elif data and not was_in_body and self._headers_timer is None and not self._force_close:
            self._headers_timer = self._loop.call_later(self._headers_timeout_s, self._too_slow)

    def _see_message(self, message: object, body: StreamReader) -> None:
        """Remember the newest body; break off the one before if its framing broke.

        aiohttp would leave its reader waiting.
        """
        before, self._last_body = self._last_body, body
        if isinstance(message, RawRequestMessage) or before is None or before.is_eof():
            return
        if self._current_request is not None:
            before.set_exception(web.RequestPayloadError("malformed body"))

    def log_exception(self, *args: Any, **kw: Any) -> None:  # as `logging.Logger.exception`
        """Keep quiet about a body that broke after its request was answered."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's
        """Close at the server's end, a connection that lingers too."""
        await super().shutdown(timeout)
        if self._lingering is not None:
            self._lingering.abort()

    async def start(self) -> None:
        """Serve the connection; once it is to close, do not wait for ever for a client to read."""
        await super().start()
        self._limit_flushing(self.transport)

    def force_close(self) -> None:
        """Close, whatever runs; do not wait for ever for a client to read."""
        transport = self.transport
        super().force_close()
        self._limit_flushing(transport)

    def _limit_flushing(self, transport: asyncio.Transport | None) -> None:
        if transport is not None and transport.get_write_buffer_size() > 0:
            self._stall_watch.start(transport)

    def tell_when_full(self, on_full: Callable[[bool], None] | None) -> None:
        """Tell somebody when the client does not read what was written, and when it does again.

        Args:
            on_full: Told how it is now, and of every change; `None` ends it.
        """
        self._on_full = on_full
        if on_full is not None:
            on_full(self.writing_paused)

    def pause_writing(self) -> None:
        """Too much waits for the client: watch that it moves."""
        super().pause_writing()
        if self.transport is not None:
            self._stall_watch.start(self.transport)
        if self._on_full is not None:
            self._on_full(True)  # noqa: FBT003 - a callback has no names

    def resume_writing(self) -> None:
        """The client has read."""
        self._stall_watch.stop()
        super().resume_writing()
        if self._on_full is not None:
            self._on_full(False)  # noqa: FBT003 - a callback has no names

    def eof_received(self) -> None:
        """A client that closes its half while it is answered has left: aiohttp closes ours."""
        if self._request_in_progress and self.writing_paused and self.transport is not None:
            self.transport.abort()  # or it would wait for a client that may never read

    def _disarm(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _too_slow(self) -> None:
        self._headers_timer = None
        if self._request_in_progress or self._messages:  # it pipelines, and may yet be quick
            self._headers_timer = self._loop.call_later(self._headers_timeout_s, self._too_slow)
            return
        limit = self._headers_timeout_s
        self._refuse(RequestTimeout(f"headers were not complete within {limit:g} s"))

    def _refuse(self, exc: ProviderError) -> None:
        if self.transport is not None:
            self.transport.write(raw_error(exc))
            self._close_gently()

    def _close_gently(self) -> None:
        """Send no more, throw away what still comes, then close.

        Closing at once would reset a connection that has unread input, and the client might lose
        the answer (RFC 9112 section 9.6).
        """
        transport, self.transport = self.transport, None
        self.force_close()
        if transport is not None:
            self._lingering = transport
            transport.write_eof()
            self._loop.call_later(self._lingering_time, transport.abort)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - echoes the offending bytes, never sent
    ) -> web.StreamResponse:
        """Answer bytes that are no HTTP, and what escaped every middleware."""
        if request.writer.output_size > 0:
            raise ConnectionError("response already begun")
        if status == HTTPStatus.BAD_REQUEST:
            self._is_malformed = True
            failure: ProviderError = HttpFailure("malformed HTTP", status=400, code="bad_http")
        else:
            log.error("request.failed", exc_info=exc)
            failure = ProviderError("internal error")
        response = error_response(failure)
        response.headers["Connection"] = "close"
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Give a JSON body also to what aiohttp raises itself."""
        if isinstance(resp, web.HTTPException):
            resp = error_response(from_http_exception(resp))
        resp, is_lost = await super().finish_response(request, resp, start_time)
        if self._is_malformed:
            self._close_gently()
        return resp, is_lost


class OpenConnections:
    """All connections of a server, against their cap.

    At the cap a new one takes the place of the one that has been idle longest, so that idle
    connections, however many, keep nobody out. It is refused when all are busy.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[GuardedConnection] = set()

    def admit(self, connection: GuardedConnection) -> bool:
        """Count one in, unless all places are taken by requests."""
        if len(self._open) >= self._limit:
            idle = [other for other in self._open if other.is_idle]
            if not idle:
                return False
            longest = min(idle, key=lambda other: other.idle_until_s)
            self._open.remove(longest)
            longest.force_close()
        self._open.add(connection)
        return True

    def forget(self, connection: GuardedConnection) -> None:
        """Count one out, if it was in."""
        self._open.discard(connection)


def connection_factory(
    server: web.Server, limits: LimitSettings, loop: asyncio.AbstractEventLoop
) -> Callable[[], GuardedConnection]:
    """The protocol factory for `loop.create_server`.

    Args:
        server: aiohttp's own, from `web.AppRunner.server`; it tracks and shuts connections.
        limits: Time-outs and caps.
        loop: The running loop.

    Raises:
        ConfigurationError: aiohttp runs without its compiled parser, which is the strict one.
    """
    if HttpRequestParser is HttpRequestParserPy:
        raise ConfigurationError(
            "aiohttp has no compiled HTTP parser here; install its wheel and do not set "
            "AIOHTTP_NO_EXTENSIONS"
        )
    others = OpenConnections(limits.max_connections)
    return lambda: GuardedConnection(server, others, limits, loop)

"""Connections as the open internet needs them: what aiohttp leaves to a proxy in front.

`GuardedConnection` adds to aiohttp's `RequestHandler` a time limit on incomplete headers, a cap on
connections, and JSON bodies for every failure, also for bytes that are no HTTP at all. It speaks
OpenAI's error shape: a malformed request has no path that could tell the dialect.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import structlog
from aiohttp import web

from provider_core.dialects.openai.errors import encode_error
from provider_core.errors import (
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    ProviderError,
    RequestTimeout,
    RequestTooLarge,
)
from provider_core.settings import LimitSettings

log = structlog.get_logger()

_LINGERING_S = 2.0  # how long a refused body is read and thrown away, so that the answer arrives


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


def error_response(exc: ProviderError, request_id: str) -> web.Response:
    """An error as a whole response in OpenAI's shape."""
    status, headers, body = encode_error(exc, request_id)
    return web.Response(status=status, headers=headers, body=body)


def raw_error(exc: ProviderError) -> bytes:
    """An error as bytes for a connection on which no request was understood; it is then closed."""
    status, headers, body = encode_error(exc, "")
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


class GuardedConnection(web.RequestHandler):
    """One client connection."""

    __slots__ = ("_count", "_headers_timeout_s", "_headers_timer")

    def __init__(
        self,
        server: web.Server,
        count: "ConnectionCount",
        limits: LimitSettings,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None turns it off; we write our own line
            keepalive_timeout=limits.keepalive_timeout_s,
            lingering_time=_LINGERING_S,
            auto_decompress=False,  # an encoded body is a 415, so no bomb is ever unpacked
        )
        self._count = count
        self._headers_timeout_s = limits.headers_timeout_s
        self._headers_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection; refuse it when there are too many."""
        super().connection_made(transport)
        if not self._count.enter():
            failure = HttpFailure("too many connections", status=503, code="overloaded")
            failure.retry_after_s = 1.0
            self._refuse(failure)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._disarm()
        self._count.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; time a request whose headers began and did not end."""
        seen = self._request_count
        super().data_received(data)
        if self._request_count != seen:
            self._disarm()
        elif self._headers_timer is None and not self._request_in_progress:
            self._headers_timer = self._loop.call_later(self._headers_timeout_s, self._too_slow)

    def _disarm(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _too_slow(self) -> None:
        self._headers_timer = None
        if not self._request_in_progress:
            limit = self._headers_timeout_s
            self._refuse(RequestTimeout(f"headers were not complete within {limit:g} s"))

    def _refuse(self, exc: ProviderError) -> None:
        if self.transport is not None:
            self.transport.write(raw_error(exc))
        self.force_close()

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
            failure: ProviderError = HttpFailure("malformed HTTP", status=400, code="bad_http")
        else:
            log.error("request.failed", exc_info=exc)
            failure = ProviderError("internal error")
        response = error_response(failure, "")
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Give JSON bodies also to what aiohttp raises before any middleware runs."""
        if isinstance(resp, web.HTTPException):
            resp = error_response(from_http_exception(resp), "")
        return await super().finish_response(request, resp, start_time)


class ConnectionCount:
    """Open connections, against their cap."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0

    def enter(self) -> bool:
        """Count one in; `False` when it is one too many."""
        self.open += 1
        return self.open <= self.limit

    def leave(self) -> None:
        """Count one out."""
        self.open -= 1


def connection_factory(
    server: web.Server, limits: LimitSettings, loop: asyncio.AbstractEventLoop
) -> Callable[[], GuardedConnection]:
    """The protocol factory for `loop.create_server`.

    Args:
        server: aiohttp's own, from `web.AppRunner.server`; it tracks and shuts connections.
        limits: Time-outs and caps.
        loop: The running loop.
    """
    count = ConnectionCount(limits.max_connections)
    return lambda: GuardedConnection(server, count, limits, loop)

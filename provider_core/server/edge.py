"""The outermost layer of every request: its id, its errors, its access line, its CORS headers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from provider_core.dialects.anthropic.errors import encode_error as encode_anthropic
from provider_core.dialects.google.errors import encode_error as encode_google
from provider_core.dialects.openai.errors import encode_error as encode_openai
from provider_core.dialects.openrouter.errors import encode_error as encode_openrouter
from provider_core.errors import ProviderError
from provider_core.observability.logs import log_access
from provider_core.server.body import check_framing
from provider_core.server.call import NOBODY, Call, Dialect
from provider_core.server.connection import SERVER, from_http_exception
from provider_core.settings import Settings

log = structlog.get_logger()

CALL = web.RequestKey("call", Call)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ENCODERS: Mapping[Dialect, Callable[[ProviderError, str], tuple[int, dict[str, str], bytes]]] = {
    "openai": encode_openai,
    "openrouter": encode_openrouter,
    "anthropic": encode_anthropic,
    "google": encode_google,
}
_CLOSING_STATUSES = {408, 413}  # what is left of such a body is not worth reading
_CORS_EXPOSED_HEADERS = (
    "X-Request-Id, request-id, X-Generation-Id, Retry-After, retry-after-ms, "
    "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
_CORS_METHODS = "GET, POST, PATCH, DELETE, OPTIONS"  # of all routes together
_CORS_HEADERS = "Authorization, *"  # the wildcard means all others, which SDKs add freely


class Edge:
    """Wraps every route, the unmatched ones too.

    Whatever a handler raises leaves as the dialect's JSON error: the request's path decides which
    dialect, the exception's class decides the status. A request of which nothing reached the
    client is logged with status 499 when the client left first.

    Args:
        settings: Of the server.
        count_response: Told of each answer's route template and status, for the metrics.
    """

    def __init__(
        self, settings: Settings, count_response: Callable[[str, int], None] = lambda *_: None
    ) -> None:
        self._settings = settings
        self._count_response = count_response
        self._origins = frozenset(settings.server.cors_origins)

    def install(self, app: web.Application) -> None:
        """Add the middleware and the headers."""
        app.middlewares.append(self._make_middleware())
        app.on_response_prepare.append(self._add_headers)

    def _make_middleware(self) -> Middleware:
        @web.middleware
        async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
            settings = self._settings
            call = Call.of(
                request, settings.limits.request_timeout_s, settings.server.request_id_header
            )
            request[CALL] = call
            response: web.StreamResponse | None = None
            try:
                if request.method == "OPTIONS" and self._is_preflight(request):
                    response = web.Response(status=204)
                else:
                    response = await self._answer(request, call, handler)
                return response
            finally:
                call.end()
                self._log(call, response)

        return edge

    async def _answer(
        self, request: web.Request, call: Call, handler: Handler
    ) -> web.StreamResponse:
        allow = None
        try:
            check_framing(request)
            return await handler(request)
        except ProviderError as exc:
            failure = exc
        except web.HTTPException as exc:
            failure = from_http_exception(exc)
            allow = exc.headers.get("Allow")
        except Exception as exc:
            if isinstance(exc, ConnectionError) and _is_gone(request):
                raise asyncio.CancelledError from None  # the client left while we were writing
            log.exception("request.failed", request_id=call.request_id, path=call.path)
            failure = ProviderError("internal error")
        call.error_code = failure.code
        if request.writer.output_size > 0:  # the answer has begun: a second one would be nonsense
            if request.transport is not None:
                request.transport.abort()
            raise asyncio.CancelledError
        status, headers, body = _ENCODERS[call.dialect](failure, call.request_id)
        call.num_sent_bytes = len(body)
        if allow is not None:
            headers["Allow"] = allow
        response = web.Response(status=status, headers=headers, body=body)
        if status in _CLOSING_STATUSES or failure.code == "bad_http":
            response.force_close()
        return response

    def _log(self, call: Call, response: web.StreamResponse | None) -> None:
        body = getattr(response, "body", None)
        size = len(body) if isinstance(body, bytes) else 0
        status = call.http_status or (499 if response is None else response.status)
        self._count_response(call.path, status)
        log_access(
            method=call.method,
            path=call.path,
            http_status=status,
            request_id=call.request_id,
            latency_ms=(monotonic() - call.received_mono) * 1000,
            num_sent_bytes=call.num_sent_bytes or size,
            api_key_id=call.principal.api_key_id if call.principal is not NOBODY else None,
            stream=call.stream,
            error_code=call.error_code,
            usage_event=call.record.event if call.record else None,
            model=call.model,
            user_id=call.user_id,
        )

    def _is_preflight(self, request: web.Request) -> bool:
        return self._allowed_origin(request) is not None and (
            "Access-Control-Request-Method" in request.headers
        )

    def _allowed_origin(self, request: web.Request) -> str | None:
        origin = request.headers.get("Origin")
        if origin is None or not self._origins:
            return None
        if "*" in self._origins:
            return "*"
        return origin if origin in self._origins else None

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        call = request.get(CALL)
        headers = response.headers
        headers["Server"] = SERVER
        if call is not None:
            call.http_status = response.status
            headers["X-Request-Id"] = call.request_id
            if call.dialect == "anthropic":  # whose clients know it by another name
                headers["request-id"] = call.request_id
            if call.generation_id is not None:
                headers["X-Generation-Id"] = call.generation_id
        origin = self._allowed_origin(request)
        if self._origins:
            headers["Vary"] = "Origin"
        if origin is not None:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = _CORS_EXPOSED_HEADERS
            if request.method == "OPTIONS":
                headers["Access-Control-Allow-Methods"] = _CORS_METHODS
                headers["Access-Control-Allow-Headers"] = _CORS_HEADERS
                headers["Access-Control-Max-Age"] = "600"


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()

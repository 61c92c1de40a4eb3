"""Serving a request by the first of several models that can, before anything has left."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from provider_core.dialects.openrouter.routing import parse_routing
from provider_core.errors import DeadlineExceeded, ProviderError
from provider_core.server.call import Call
from provider_core.server.response_cache import ResponseCache

Serve = Callable[[web.Request, Call, dict[str, Any]], Awaitable[web.StreamResponse]]
"""Parses a body and answers it, or raises before the first byte."""


async def first_that_serves(
    request: web.Request,
    call: Call,
    body: dict[str, Any],
    serve: Serve,
    cache: ResponseCache | None = None,
) -> web.StreamResponse:
    """Try the models of a request in order; any error sends it to the next.

    Each attempt is a generation of its own, and one that fails costs nothing. An answer that has
    begun is not begun again.

    Args:
        request: The request to answer.
        call: The same; its routing and its place in the cache are noted there.
        body: Parsed JSON; each attempt sees it with its own `model`.
        serve: One attempt.
        cache: Of answers, if `serve` looks into it.

    Raises:
        ProviderError: The last attempt's.
    """
    call.routing = parse_routing(body)
    call.session_id = call.routing.session_id or call.session_id
    models = call.routing.models
    for name in models[:-1]:
        try:
            return await _attempt(request, call, {**body, "model": name}, serve, cache)
        except DeadlineExceeded:
            raise
        except ProviderError:
            if request.writer.output_size > 0:
                raise
            call.record = None
            call.generation_id = None
    last = {**body, "model": models[-1]} if models else body
    try:
        return await _attempt(request, call, last, serve, cache)
    except ProviderError as error:
        error.models = models
        raise


async def _attempt(
    request: web.Request,
    call: Call,
    body: dict[str, Any],
    serve: Serve,
    cache: ResponseCache | None,
) -> web.StreamResponse:
    if cache is not None:
        call.cache_slot = cache.slot(
            request, body, api_key_id=call.principal.api_key_id, route=call.path
        )
    return await serve(request, call, body)

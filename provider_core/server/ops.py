"""`/metrics`: on the main port for loopback only, or on a port of its own."""

import ipaddress
from collections.abc import Awaitable, Callable

from aiohttp import web

from provider_core.errors import NotFound
from provider_core.observability.metrics import Metrics
from provider_core.server.connection import error_response, from_http_exception
from provider_core.settings import Settings

_FORWARDING_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")


class Ops:
    """The operator's routes."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._public = settings.server.metrics_public
        self._metrics = metrics

    def add_routes(self, app: web.Application) -> None:
        """Register on the main application; strangers get a 404."""
        app.router.add_get("/metrics", self.get_metrics)

    def ops_app(self) -> web.Application:
        """A whole application for a port of its own."""
        app = web.Application(middlewares=[_json_errors])
        app.router.add_get("/metrics", self.get_metrics)
        return app

    async def get_metrics(self, request: web.Request) -> web.Response:
        """Prometheus' text format, for who sits on this machine."""
        if not self._public and not _is_local(request):
            raise NotFound("no such path")
        body, content_type = self._metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})


@web.middleware
async def _json_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except NotFound as exc:
        return error_response(exc)
    except web.HTTPException as exc:
        return error_response(from_http_exception(exc))


def _is_local(request: web.Request) -> bool:
    """Whether a program on this machine asks for itself.

    Neither for others, as a proxy does, nor for a web page, as a browser does: its `Origin` shows
    that, or else the page's own name in `Host`, which DNS rebinding points at loopback.
    """
    headers = request.headers
    if "Origin" in headers or any(name in headers for name in _FORWARDING_HEADERS):
        return False
    return _is_loopback(request.remote) and _is_loopback(request.url.host)


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return host is not None and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""`/metrics`: on the main port for loopback only, or on a port of its own."""

import ipaddress

from aiohttp import web

from provider_core.errors import NotFound
from provider_core.observability.metrics import Metrics
from provider_core.settings import Settings


class Ops:
    """The operator's routes."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._public = settings.server.metrics_public
        self._metrics = metrics

    def add_routes(self, app: web.Application) -> None:
        """Register on the main application; strangers get a 404."""
        app.router.add_get("/metrics", self.metrics_for_loopback)

    def ops_app(self) -> web.Application:
        """A whole application for a port of its own."""
        app = web.Application()
        app.router.add_get("/metrics", self.metrics)
        return app

    async def metrics_for_loopback(self, request: web.Request) -> web.Response:
        """Serve only who sits on this machine and was not forwarded here by a proxy."""
        forwarded = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
        if not self._public and (forwarded or not _is_loopback(request.remote)):
            raise NotFound("no such path")
        return await self.metrics(request)

    async def metrics(self, _: web.Request) -> web.Response:
        """Prometheus' text format."""
        body, content_type = self._metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})


def _is_loopback(remote: str | None) -> bool:
    try:
        return remote is not None and ipaddress.ip_address(remote).is_loopback
    except ValueError:
        return False

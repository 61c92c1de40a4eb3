"""Probes: is the process alive, should it get traffic, how far is its start."""

from aiohttp import web

from provider_core.billing.journal import UsageJournal
from provider_core.errors import EngineDead
from provider_core.lifecycle import Lifecycle, State
from provider_core.server.models import Models


class Health:
    """The probe routes.

    `/livez` says that the event loop turns and asks nothing else. `/readyz` says why not, when not.
    `/ping` and `/health` answer as `/readyz`, under the names platforms ask for.
    """

    def __init__(
        self, lifecycle: Lifecycle, models: Models, journal: UsageJournal | None = None
    ) -> None:
        self._lifecycle = lifecycle
        self._models = models
        self._journal = journal

    def add_routes(self, app: web.Application) -> None:
        """Register the probes; none needs a key."""
        app.router.add_get("/livez", self.livez)
        for path in ("/readyz", "/ping", "/health"):
            app.router.add_get(path, self.readyz)
        app.router.add_get("/startupz", self.startupz)

    async def livez(self, _: web.Request) -> web.Response:
        """200 while the loop turns."""
        return web.json_response({"status": "alive"})

    async def readyz(self, _: web.Request) -> web.Response:
        """200 when requests are served, else 503 with the reason."""
        reason = self._why_not_ready()
        if reason is None:
            return web.json_response({"status": "ready"})
        return web.json_response(
            {"status": self._lifecycle.state.name.lower(), "reason": reason},
            status=503,
            headers={"Retry-After": "1"},
        )

    async def startupz(self, _: web.Request) -> web.Response:
        """200 once started, for good; before, 503 with the phase and the times of those done."""
        started = self._lifecycle.state is not State.STARTING
        return web.json_response(
            {
                "status": "started" if started else "starting",
                "reason": self._lifecycle.reason,
                **self._lifecycle.timings_ms(),
            },
            status=200 if started else 503,
        )

    def _why_not_ready(self) -> str | None:
        if not self._lifecycle.is_ready:
            return self._lifecycle.reason
        for model in self._models:
            try:
                model.engine.check_health()
            except EngineDead as exc:
                return f"model {model.spec.id}: {exc.message}"
        return None if self._journal is None else self._journal.problem

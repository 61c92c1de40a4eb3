"""Probes: is the process alive, should it get traffic, how far is its start."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from aiohttp import web

from provider_core.billing.journal import UsageJournal
from provider_core.errors import EngineDead, Unavailable
from provider_core.lifecycle import Lifecycle, State
from provider_core.platforms import ProbeSettings
from provider_core.server.models import Models

_LIVE = ProbeSettings(starting=200, ready=200, failing=200, draining=200)
_READY = ProbeSettings(starting=503, ready=200, failing=503, draining=503)
_STARTED = ProbeSettings(starting=503, ready=200, failing=200, draining=200)

BUILT_IN: Mapping[str, ProbeSettings] = {
    "/livez": _LIVE,
    "/readyz": _READY,
    "/ping": _READY,
    "/health": _READY,
    "/startupz": _STARTED,
    "/v2/health/live": _LIVE,  # of the Open Inference Protocol, which KServe speaks
    "/v2/health/ready": _READY,
}
"""What each path answers in which state, unless the settings say otherwise."""


class Health:
    """The probe routes: the server's state decides the status code, path by path.

    Bodies say which state it is and why. `/livez` asks nothing but whether the event loop turns.

    Args:
        lifecycle: The state.
        models: Whose engines are asked for their health.
        journal: Asked whether bills can be kept.
        probes: Further paths, or other codes of the built-in ones.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        models: Models,
        journal: UsageJournal | None = None,
        probes: Mapping[str, ProbeSettings] | None = None,
    ) -> None:
        self._lifecycle = lifecycle
        self._models = models
        self._journal = journal
        self._probes = {**BUILT_IN, **(probes or {})}

    def add_routes(self, app: web.Application) -> None:
        """Register the probes; none needs a key."""
        for path, codes in self._probes.items():
            app.router.add_get(path, self.live if codes == _LIVE else self._make_probe(codes))
        app.router.add_get("/v2/models/{model:.+}/ready", self.model_ready)

    async def live(self, _: web.Request) -> web.Response:
        """200 while the loop turns."""
        return web.json_response({"status": "alive"})

    async def model_ready(self, request: web.Request) -> web.Response:
        """Whether a model takes requests; 404 if there is none of that name."""
        model = self._models.find(request.match_info["model"])
        is_ready = model.spec.is_ready and self._why_not_ready() is None
        body = {"name": model.spec.id, "ready": is_ready}
        return web.json_response(body, status=200 if is_ready else 503)

    def _make_probe(self, codes: ProbeSettings) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def probe(_: web.Request) -> web.Response:
            """In which state the server is."""
            reason = self._why_not_ready()
            word, status = self._state_of(codes, is_failing=reason is not None)
            if status == HTTPStatus.NO_CONTENT:
                return web.Response(status=status)
            body: dict[str, object] = {"status": word, "reason": reason or "ready"}
            if codes == _STARTED:
                body |= self._lifecycle.timings_ms()
            headers = {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
            return web.json_response(body, status=status, headers=headers)

        return probe

    def _state_of(self, codes: ProbeSettings, *, is_failing: bool) -> tuple[str, int]:
        """The state in one word and as a status code."""
        match self._lifecycle.state:
            case State.STARTING:
                return "starting", codes.starting
            case State.READY:
                return ("failing", codes.failing) if is_failing else ("ready", codes.ready)
            case State.DRAINING | State.STOPPED:
                return "draining", codes.draining

    def _why_not_ready(self) -> str | None:
        if not self._lifecycle.is_ready:
            return self._lifecycle.reason
        for model in self._models:
            try:
                model.engine.check_health()
            except (EngineDead, Unavailable) as exc:
                return f"model {model.spec.id}: {exc.message}"
        return None if self._journal is None else self._journal.problem

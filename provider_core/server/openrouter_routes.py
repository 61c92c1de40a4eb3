"""OpenRouter's routes: what its provider monitor reads, and what its clients ask of accounts."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from time import time

import orjson
from aiohttp import web

from provider_core.billing.ledger import UsageLedger
from provider_core.billing.ledger_rows import Owner
from provider_core.dialects.openrouter.accounts import (
    activity_list,
    credits_object,
    generation_object,
    key_object,
)
from provider_core.dialects.openrouter.models import (
    BASE,
    model_count,
    model_endpoints,
    model_object,
    provider_list,
)
from provider_core.dialects.openrouter.monitor import ListedBy, Place, legacy_list, monitor_list
from provider_core.dialects.validation import bad_value
from provider_core.errors import InvalidRequest, NotFound
from provider_core.server.features import listed
from provider_core.server.pipeline import Pipeline
from provider_core.settings import Settings
from provider_core.stores import CreditLedger
from provider_core.types import ModelSpec, Principal

_ACTIVITY_DAYS = 30
_UNNAMED_REGIONS = {"local"}


class OpenRouterRoutes:
    """Listings are open to everybody unless `access.private_models` is set; accounts never are.

    Args:
        pipeline: Says who is calling.
        ledger: Where generations are looked up; `None` if none is kept.
        credit_ledger: What accounts have bought.
    """

    def __init__(
        self, pipeline: Pipeline, ledger: UsageLedger | None, credit_ledger: CreditLedger
    ) -> None:
        self._pipeline = pipeline
        self._models = pipeline.dispatcher.models
        self._settings = pipeline.settings
        self._ledger = ledger
        self._credits = credit_ledger
        self._by = ListedBy(
            provider=self._settings.provider,
            places=places(self._settings),
            images=self._settings.images,
        )

    def add_routes(self, app: web.Application) -> None:
        """Register; before the OpenAI dialect's routes, whose model ids may hold any path."""
        get = app.router.add_get
        get("/openrouter/models", self.monitor)
        get(f"{BASE}/models/count", self.count)
        get(f"{BASE}/models/{{model:.+}}/endpoints", self.endpoints)
        get(f"{BASE}/model/{{model:.+}}", self.model)
        get(f"{BASE}/providers", self.providers)
        get(f"{BASE}/generation", self.generation)
        get(f"{BASE}/generation/{{id}}", self.generation)
        get(f"{BASE}/key", self.key)
        get(f"{BASE}/auth/key", self.key)
        get(f"{BASE}/credits", self.credits)
        get(f"{BASE}/activity", self.activity)

    async def monitor(self, request: web.Request) -> web.Response:
        """`GET /openrouter/models`: schema 2.4, or with `?format=legacy` the flat form."""
        await self._enter(request)
        form = request.query.get("format", "2.4")
        if form not in {"2.4", "legacy"}:
            raise bad_value("format", "must be 2.4 or legacy")
        make = legacy_list if form == "legacy" else monitor_list
        return _json(make(self._specs(), self._by))

    async def count(self, request: web.Request) -> web.Response:
        """`GET /api/v1/models/count`."""
        await self._enter(request)
        return _json(model_count(self._specs(), request.query))

    async def endpoints(self, request: web.Request) -> web.Response:
        """`GET /api/v1/models/{author}/{slug}/endpoints`."""
        await self._enter(request)
        return _json(model_endpoints(self._spec(request), self._settings.provider))

    async def model(self, request: web.Request) -> web.Response:
        """`GET /api/v1/model/{author}/{slug}`."""
        await self._enter(request)
        return _json({"data": model_object(self._spec(request))})

    async def providers(self, request: web.Request) -> web.Response:
        """`GET /api/v1/providers`: this one."""
        await self._enter(request)
        countries = [place.country for place in self._by.places]
        return _json(provider_list(self._settings.provider, countries))

    async def generation(self, request: web.Request) -> web.Response:
        """`GET /api/v1/generation?id=` or `/generation/{id}`: the caller's own only."""
        owner, _ = await self._identify(request)
        generation_id = request.match_info.get("id") or request.query.get("id")
        if not generation_id:
            raise InvalidRequest("id is required", param="id", code="missing_required_parameter")
        found = await self._require_ledger().find(generation_id, owner)
        if found is None:
            raise NotFound(f"no generation {generation_id[:64]!r} of this key")
        return _json(generation_object(found, self._settings.provider.name))

    async def key(self, request: web.Request) -> web.Response:
        """`GET /api/v1/key`, formerly `/auth/key`."""
        owner, principal = await self._identify(request)
        spending = await self._require_ledger().spending(Owner(owner.api_key_id))
        return _json(key_object(principal, spending))

    async def credits(self, request: web.Request) -> web.Response:
        """`GET /api/v1/credits`: of the account; what one that pays later used is not bought."""
        owner, _ = await self._identify(request)
        account_id = owner.account_id
        balance = None if account_id is None else await self._credits.balance(account_id)
        if balance is not None:
            return _json(credits_object(balance.bought, balance.used))
        spending = await self._require_ledger().spending(owner)
        return _json(credits_object(Decimal(0), spending.total))

    async def activity(self, request: web.Request) -> web.Response:
        """`GET /api/v1/activity`: the last 30 whole days, or `?date=` one of them."""
        owner, _ = await self._identify(request)
        today = datetime.fromtimestamp(time(), UTC).date()
        days = [(today - timedelta(days=ago)).isoformat() for ago in range(1, _ACTIVITY_DAYS + 1)]
        first, last = days[-1], days[0]
        asked = request.query.get("date")
        if asked is not None:
            if asked not in days:
                raise bad_value(
                    "date", f"must be one of the last {_ACTIVITY_DAYS} whole days, YYYY-MM-DD"
                )
            first = last = asked
        found = await self._require_ledger().activity(owner, first, last)
        return _json(activity_list(found, self._settings.provider.name))

    async def _enter(self, request: web.Request) -> None:
        if self._settings.access.private_models:
            await self._pipeline.identify(request)
        self._pipeline.check_serving(request)

    async def _identify(self, request: web.Request) -> tuple[Owner, Principal]:
        principal = (await self._pipeline.identify(request)).principal
        return Owner(principal.api_key_id, principal.account_id), principal

    def _specs(self) -> list[ModelSpec]:
        return [listed(model) for model in self._models]

    def _spec(self, request: web.Request) -> ModelSpec:
        return listed(self._models.find(request.match_info["model"]))

    def _require_ledger(self) -> UsageLedger:
        if self._ledger is None:
            raise NotFound("this server keeps no record of generations")
        return self._ledger


def places(settings: Settings) -> tuple[Place, ...]:
    """Where requests are served: here, and in the countries that the configuration names."""
    here, region = settings.server.country, settings.server.region
    found = {country: Place(country=country) for country in settings.provider.countries}
    if here is not None:
        found[here] = Place(country=here, region=None if region in _UNNAMED_REGIONS else region)
    return tuple(found.values())


def _json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")

"""The management of keys: `/api/v1/keys`, for management keys only."""

import asyncio
from decimal import Decimal
from http import HTTPStatus
from time import time
from typing import Any

import orjson
from aiohttp import web

from provider_core.access.api_key import ApiKey, timestamp
from provider_core.access.keys import KeyStore
from provider_core.billing.ledger import UsageLedger
from provider_core.billing.ledger_rows import Owner, Spending
from provider_core.dialects.json_body import parse_json_object
from provider_core.dialects.openrouter.accounts import credits_object
from provider_core.dialects.openrouter.keys import (
    PAGE_SIZE,
    key_item,
    parse_changes,
    parse_credit,
    parse_new_key,
)
from provider_core.dialects.openrouter.models import BASE
from provider_core.dialects.validation import bad_value
from provider_core.errors import NotFound, PermissionDenied
from provider_core.server.body import read_body
from provider_core.server.pipeline import Pipeline
from provider_core.stores import CreditLedger
from provider_core.types import Principal


class KeyRoutes:
    """Makes, lists, changes and revokes keys; those of its own account, if the caller has one.

    Args:
        pipeline: Says who is calling.
        keys: Where they are kept.
        ledger: Knows what each has spent; `None` if nobody does.
        credit_ledger: What accounts have bought.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        keys: KeyStore,
        ledger: UsageLedger | None,
        credit_ledger: CreditLedger,
    ) -> None:
        self._pipeline = pipeline
        self._keys = keys
        self._ledger = ledger
        self._credits = credit_ledger

    def add_routes(self, app: web.Application) -> None:
        """Register."""
        app.router.add_get(f"{BASE}/keys", self.list)
        app.router.add_post(f"{BASE}/keys", self.create)
        app.router.add_get(f"{BASE}/keys/{{hash}}", self.get)
        app.router.add_patch(f"{BASE}/keys/{{hash}}", self.update)
        app.router.add_delete(f"{BASE}/keys/{{hash}}", self.delete)
        app.router.add_post(f"{BASE}/credits", self.add_credits)

    async def list(self, request: web.Request) -> web.Response:
        """`GET /api/v1/keys`: 100 from `?offset=` on, the newest first."""
        caller = await self._identify(request)
        offset = request.query.get("offset", "0")
        if not (offset.isascii() and offset.isdigit() and len(offset) < 10):
            raise bad_value("offset", "must be an integer of at least 0")
        with_disabled = request.query.get("include_disabled", "").lower() in {"true", "1"}
        now = timestamp(time())
        keys = [
            key
            for key in await self._keys.select(caller.account_id)
            if key.revoked_at is None and (with_disabled or key.refusal(now) is None)
        ]
        page = keys[int(offset) :][:PAGE_SIZE]
        return _json({"data": await asyncio.gather(*map(self._item, page))})

    async def create(self, request: web.Request) -> web.Response:
        """`POST /api/v1/keys`: the secret is in this answer and nowhere else."""
        caller = await self._identify(request)
        facts = parse_new_key(await self._body(request))
        if caller.account_id is not None:
            if facts["account_id"] not in {None, caller.account_id}:
                raise PermissionDenied("this key manages the keys of its own account only")
            facts["account_id"] = caller.account_id
        key, secret = await self._keys.create(**facts)
        answer = {"data": await self._item(key), "key": secret}
        return _json(answer, HTTPStatus.CREATED)

    async def get(self, request: web.Request) -> web.Response:
        """`GET /api/v1/keys/{hash}`."""
        caller = await self._identify(request)
        return _json({"data": await self._item(await self._find(request, caller))})

    async def update(self, request: web.Request) -> web.Response:
        """`PATCH /api/v1/keys/{hash}`: what the body leaves out stays as it is."""
        caller = await self._identify(request)
        changes = parse_changes(await self._body(request))
        key = await self._find(request, caller)
        changed = await self._keys.update(key, **changes)
        if changed is None:  # revoked in between
            raise _no_such_key()
        return _json({"data": await self._item(changed)})

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE /api/v1/keys/{hash}`: refused from now on, and its bills stay."""
        caller = await self._identify(request)
        await self._keys.revoke(await self._find(request, caller))
        return _json({"deleted": True})

    async def add_credits(self, request: web.Request) -> web.Response:
        """`POST /api/v1/credits`: an account has paid; for keys of the operator only."""
        caller = await self._identify(request)
        if caller.account_id is not None:
            raise PermissionDenied("an account cannot credit itself")
        credit = parse_credit(await self._body(request))
        balance = await self._credits.add(
            credit.account_id, Decimal(credit.amount), event_id=credit.id, note=credit.note
        )
        return _json(credits_object(balance.bought, balance.used), HTTPStatus.CREATED)

    async def _identify(self, request: web.Request) -> Principal:
        principal = (await self._pipeline.identify(request)).principal
        if principal.scope != "management":
            raise PermissionDenied("only a management key may do this")
        return principal

    async def _find(self, request: web.Request, caller: Principal) -> ApiKey:
        name = request.match_info["hash"]
        key = await self._keys.find(name, caller.account_id)
        if key is None or key.revoked_at is not None:
            raise _no_such_key()
        return key

    async def _body(self, request: web.Request) -> dict[str, Any]:
        return parse_json_object(await read_body(request, self._pipeline.settings.limits))

    async def _item(self, key: ApiKey) -> dict[str, Any]:
        ledger = self._ledger
        spending = Spending() if ledger is None else await ledger.spending(Owner(key.id))
        return key_item(key, spending, timestamp(time()))


def _no_such_key() -> NotFound:
    return NotFound("no such key")


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")

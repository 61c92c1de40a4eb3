"""Credits that replicas share: each reservation, charge and release is one step of Redis."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import structlog

from provider_core import (
    Balance,
    Conflict,
    InsufficientCredits,
    Movement,
    Principal,
    SpendLimit,
    Unavailable,
    Unread,
    UsageEvent,
)
from provider_redis.amounts import to_text, to_usd
from provider_redis.birth import FIELD, Birth
from provider_redis.charges import Charge, Charges, charge_of
from provider_redis.connection import RedisConnection, RedisFailedError
from provider_redis.diagnosis import may_lose

log = structlog.get_logger()

RESERVED_FOR_S = 600.0
"""Beyond its deadline a request has settled, or its server is gone."""

_RETRY_S = 5.0
_LOW = Decimal("0.8")
_MAX_WARNED = 10_000


class RedisCreditLedger:
    """The `CreditLedger` of all servers of one Redis, whose clock counts.

    Args:
        connection: To Redis.
        event_retention_days: For which charges are known by their events.
        remembered_in: A file that says which ledger this is, for the next start.
    """

    def __init__(
        self,
        connection: RedisConnection,
        *,
        event_retention_days: float,
        remembered_in: Path | None = None,
    ) -> None:
        self._connection = connection
        self._birth = Birth(connection, remembered_in)
        self._charges = Charges(connection, retention_days=event_retention_days)
        self._reserved: dict[str, tuple[str, str]] = {}  # key and account, by generation id
        self._warned: set[tuple[str, str]] = set()
        self._checking: asyncio.Task[None] | None = None

    def start(self, unread: Unread) -> None:
        """Charge what journals have and Redis has not. Returns at once."""
        self._charges.catch_up(unread)
        self._checking = asyncio.create_task(self._check_keeping())

    async def reserve(
        self, generation_id: str, principal: Principal, usd: Decimal, *, deadline_s: float
    ) -> bool:
        """Set money aside for a request.

        Raises:
            InsufficientCredits: It is not there.
            Unavailable: Nobody knows, or Redis has lost what it knew.
        """
        limit, account_id = principal.spend_limit, principal.account_id or ""
        if limit is None and not account_id:
            return False
        owners = self._reserved[generation_id] = principal.api_key_id, account_id
        arguments = [
            generation_id,
            to_text(usd),
            int((deadline_s + RESERVED_FOR_S) * 1e6),
            "" if limit is None else to_text(limit.usd),
            "" if limit is None else limit.reset or "",
            int(bool(account_id)),
        ]
        asked = asyncio.create_task(self._ask_to_reserve(self._keys_of(*owners), arguments))
        try:
            verdict, *facts = await asyncio.shield(asked)
        except RedisFailedError as error:
            self.release(generation_id)  # it may be there nevertheless
            raise _unavailable(error) from error
        except asyncio.CancelledError:  # a release must not be quicker than what it releases
            asked.add_done_callback(lambda asked: self._release_after(asked, generation_id))
            raise
        if verdict == "reserved":
            self._warn(principal, facts)
            return True
        del self._reserved[generation_id]
        if verdict == "later":
            return False
        if verdict == "lost":
            raise _unavailable(RedisFailedError(await self._loss()))
        raise InsufficientCredits(_refusal(limit if verdict == "key" else None))

    def release(self, generation_id: str) -> None:
        """Give back what a request has reserved that will not be charged."""
        owners = self._reserved.pop(generation_id, None)
        if owners is not None:
            key_id, account_id = owners
            charge = Charge(generation_id=generation_id, api_key_id=key_id, account_id=account_id)
            self._charges.add(charge)

    def record(self, event: UsageEvent) -> None:
        """Replace a reservation by what the request cost, once for each event."""
        charge = charge_of(event)
        self._reserved.pop(charge.generation_id, None)
        self._charges.add(charge)

    async def add(self, account_id: str, usd: Decimal, *, event_id: str, note: str = "") -> Balance:
        """Credit an account.

        Raises:
            Conflict: The id is that of a credit of another amount or account.
            Unavailable: Redis cannot be used.
        """
        key = self._connection.key
        of_account = self._keys_of_account(account_id)
        keys = [
            key("payments"),
            *of_account,
            key("account-credits", account_id),
            self._birth.key,
        ]
        credit = {"event_id": event_id, "kind": "credit", "usd": f"{usd:f}", "note": note}
        arguments = [event_id, to_text(usd), json.dumps(credit)]
        try:
            found = await self._connection.run("add_credit", keys, arguments)
        except RedisFailedError as error:
            raise _unavailable(error) from error
        if found == ["conflict"]:
            raise Conflict(
                f"{event_id} is a payment of another amount or account, and was credited",
                param="id",
                code="payment_conflict",
            )
        return _balance(found or ["0 0 0"] * 3)

    async def balance(self, account_id: str) -> Balance | None:
        """What an account has; `None` if it pays later.

        Raises:
            Unavailable: Redis cannot be used.
        """
        try:
            found = await self._ask("balance", self._keys_of_account(account_id), [])
        except RedisFailedError as error:
            raise _unavailable(error) from error
        return None if found is None else _balance(found)

    async def movements(self, account_id: str, limit: int = 100) -> list[Movement]:
        """What has changed an account's balance, the newest first; of charges the latest 1,000.

        Raises:
            Unavailable: Redis cannot be used.
        """
        key = self._connection.key
        try:
            lists = [
                await self._connection.command("LRANGE", key(name, account_id), 0, limit)
                for name in ("account-credits", "account-charges")
            ]
        except RedisFailedError as error:
            raise _unavailable(error) from error
        found = [_movement(text, account_id) for texts in lists for text in texts]
        found.sort(key=lambda movement: (-movement.at_s, movement.event_id))
        return found[:limit]

    async def close(self) -> None:
        """Charge what can be charged, and close. Idempotent."""
        if self._checking is not None:
            self._checking.cancel()
        await self._charges.close()
        await self._connection.close()

    async def _check_keeping(self) -> None:
        """Tell the operator of a Redis that may lose money."""
        with suppress(RedisFailedError):  # not there yet, or it does not say
            reason = may_lose(await self._connection.command("INFO"))
            if reason:
                log.warning("credits.may_be_lost", reason=reason)

    async def _ask(self, script: str, keys: Sequence[str], arguments: Sequence[object]) -> Any:
        """Run a script when everything that waits has been charged.

        Raises:
            RedisFailedError: It may have run, or not.
        """
        await self._charges.settle()
        return await self._connection.run(script, keys, arguments)

    async def _ask_to_reserve(self, keys: Sequence[str], arguments: Sequence[object]) -> Any:
        birth = await self._birth.load()
        return await self._ask("reserve", [*keys, self._birth.key], [*arguments, birth])

    async def _loss(self) -> str:
        """What the operator of a Redis that has lost money is told."""
        key, birth = self._birth.key, await self._birth.load()
        return (
            "Redis has lost credits, or is another one: restore its data, or credit the accounts "
            f"anew and then say so: HSET {key} {FIELD} {birth}"
        )

    def _release_after(self, asked: "asyncio.Task[Any]", generation_id: str) -> None:
        if not asked.cancelled():
            asked.exception()  # nobody else looks at it
        self.release(generation_id)

    def _keys_of(self, api_key_id: str, account_id: str) -> list[str]:
        """What `reserve` looks at."""
        key = self._connection.key
        account, *held_of_account = self._keys_of_account(account_id)
        of_key = [key(name, api_key_id) for name in ("key-spending", "key-held", "key-lapses")]
        return [account, *of_key, *held_of_account]

    def _keys_of_account(self, account_id: str) -> list[str]:
        """What is bought and used, what requests hold, and when that lapses."""
        names = "account", "account-held", "account-lapses"
        return [self._connection.key(name, account_id) for name in names]

    def _warn(self, principal: Principal, facts: Sequence[str]) -> None:
        """Tell the operator, once, when four fifths are used."""
        used, since, bought, account_used = facts
        limit = principal.spend_limit
        low = []
        if limit is not None and to_usd(used) >= limit.usd * _LOW:
            low.append((principal.api_key_id, since))
        if bought and to_usd(account_used) >= to_usd(bought) * _LOW:
            low.append((principal.account_id or "", bought))
        for owner in low:
            if owner not in self._warned and len(self._warned) < _MAX_WARNED:
                self._warned.add(owner)
                log.warning("credits.low", owner=owner[0])


def _refusal(limit: SpendLimit | None) -> str:
    if limit is None:
        return "the account's credits do not cover this request; add credits"
    period = "" if limit.reset is None else f" {limit.reset}"
    return f"this API key's{period} limit of {limit.usd} USD is used up"


def _unavailable(error: RedisFailedError) -> Unavailable:
    log.error("credits.unavailable", error=str(error))
    return Unavailable(
        "credits cannot be used now", code="credits_unavailable", retry_after_s=_RETRY_S
    )


def _balance(texts: Sequence[str]) -> Balance:
    bought, used, reserved = map(to_usd, texts)
    return Balance(bought=bought, used=used, reserved=reserved)


def _movement(text: str, account_id: str) -> Movement:
    at_us, _, document = text.partition(" ")
    fields: dict[str, Any] = json.loads(document)
    return Movement(
        event_id=fields["event_id"],
        at_s=int(at_us) / 1e6,
        kind=fields["kind"],
        account_id=account_id,
        api_key_id=fields.get("api_key_id"),
        usd=Decimal(fields["usd"]),
        note=fields["note"],
    )

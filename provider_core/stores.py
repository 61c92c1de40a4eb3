"""What replicas may share: how fast keys are used, and what accounts and keys may spend.

The core counts rates in memory and money in `access.sqlite`. A plugin that answers `make_store`
takes its place. The policy stays with the core: what is taken when, what a refusal says, and that
while a store fails rates are open (each server counts by itself) and credits are closed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, Protocol, runtime_checkable

from provider_core.quotas import ConcurrencyLimit, RateBucket
from provider_core.types import Principal

StoreKind = Literal["limits", "credits"]

UsageEvent = Mapping[str, Any]
"""A `usage.final` or `usage.adjustment`, by the names of docs/log-schema.md."""

Unread = Callable[[Mapping[str, int]], Iterator[tuple[Sequence[UsageEvent], Mapping[str, int]]]]
"""Given the sizes of journals' files as they were read: events beyond them, and the new sizes."""


@dataclass(frozen=True, slots=True)
class Taking:
    """The answer of a `LimitStore`.

    Attributes:
        is_taken: Whether everything was there; else nothing was taken.
        levels: What each bucket holds now, in the order of the question; below 0 it is in debt.
        num_running: How many other requests each concurrency limit counts.
    """

    is_taken: bool
    levels: tuple[float, ...]
    num_running: tuple[int, ...] = ()


@runtime_checkable
class LimitStore(Protocol):
    """Counts rates and running requests for all who share it. Called on the event loop."""

    async def take(
        self,
        request_id: str,
        amounts: Sequence[tuple[RateBucket, float]],
        concurrency: Sequence[ConcurrencyLimit] = (),
    ) -> Taking:
        """Take from every bucket and count the request as running, or neither: in one step.

        A bucket has enough if it holds the amount, or is full and the amount is more than it can
        hold: then it is in debt. An amount of 0 or less is always there.

        Args:
            request_id: Of the request; unique among all who share the store.
            amounts: Of each bucket.
            concurrency: Where to count the request, once each. One that is counted already is
                counted once. Who stops without `give_back` must not be counted for ever.

        Raises:
            Exception: Of any kind: the store cannot answer. The server counts by itself then.
        """
        ...

    def give_back(
        self,
        request_id: str,
        amounts: Sequence[tuple[RateBucket, float]],
        concurrency: Sequence[ConcurrencyLimit] = (),
    ) -> None:
        """Put amounts back, or take what is below 0; no longer count the request as running.

        Never blocks, never raises; may be too late or be lost if the store fails.
        """
        ...

    async def close(self) -> None:
        """Finish what was given back, and close. Idempotent."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What an account that pays in advance has; all in USD."""

    bought: Decimal
    used: Decimal
    reserved: Decimal

    @property
    def available(self) -> Decimal:
        """What another request may reserve."""
        return self.bought - self.used - self.reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One change of what an account has.

    Attributes:
        event_id: Unique: what comes twice counts once.
        at_s: Unix time.
        usd: Above 0 for credits, below for charges.
        note: For people.
    """

    event_id: str
    at_s: float
    kind: Literal["credit", "charge", "adjustment"]
    account_id: str | None
    api_key_id: str | None
    usd: Decimal
    note: str | None = None


@runtime_checkable
class CreditLedger(Protocol):
    """Knows what accounts have bought and keys have used, and sets money aside for requests.

    An account pays in advance from its first credit on. Called on the event loop. Whatever awaits
    raises `Unavailable` while the ledger cannot be used.
    """

    def start(self, unread: Unread) -> None:
        """Charge what journals have and the ledger has not. Returns at once.

        Args:
            unread: Reads them; blocks, so it is for a thread.
        """
        ...

    async def reserve(
        self, generation_id: str, principal: Principal, usd: Decimal, *, deadline_s: float
    ) -> bool:
        """Set money aside for a request, in one step with the check that it is there.

        Args:
            generation_id: Of the request.
            principal: Who pays.
            usd: The most it can cost.
            deadline_s: Seconds after which it is over.

        Returns:
            Whether there is a reservation; there is none for who pays later and has no limit.

        Raises:
            InsufficientCredits: That much is not there.
            Unavailable: Nobody knows: the request must not run.
        """
        ...

    def release(self, generation_id: str) -> None:
        """Give back what a request has reserved that will not be charged. Never raises."""
        ...

    def record(self, event: UsageEvent) -> None:
        """Replace a reservation by what the request cost, once for each `event_id`.

        Never blocks, never raises: what cannot be charged now is charged later, and before
        anything else is reserved.
        """
        ...

    async def add(self, account_id: str, usd: Decimal, *, event_id: str, note: str = "") -> Balance:
        """Credit an account; from its first credit on it pays in advance.

        Args:
            account_id: Whose.
            usd: How much; below 0 takes credit back.
            event_id: The same credit of the same id changes nothing.
            note: For people.

        Raises:
            Conflict: The id is that of a credit of another amount or account.
        """
        ...

    async def balance(self, account_id: str) -> Balance | None:
        """What an account has; `None` if it pays later."""
        ...

    async def movements(self, account_id: str, limit: int = 100) -> list[Movement]:
        """What has changed an account's balance, the newest first."""
        ...

    async def close(self) -> None:
        """Charge what can be charged, and close. Idempotent."""
        ...

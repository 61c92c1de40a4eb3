"""Money that keys and accounts may spend: reserved at admission, charged by the usage event.

An account pays in advance from its first credit on; a key may have a limit of its own. A request
reserves the most it can cost, in one step with the check that this is there. Its usage event then
replaces the reservation by the cost, in one transaction that also remembers the event's id: an
event that comes twice, after a crash or from a journal, charges once.

The journal is the truth, so nobody waits for these charges. Those that the file cannot take now
are kept, and are written before anything else is reserved.
"""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

import structlog

from provider_core.access import credit_rows
from provider_core.access.credit_rows import Reservation
from provider_core.access.database import AccessDatabase
from provider_core.clocks import SteadyClock
from provider_core.errors import InsufficientCredits, Unavailable
from provider_core.interfaces import Clock
from provider_core.stores import Balance, Movement, Unread, UsageEvent
from provider_core.types import Principal

log = structlog.get_logger()

T = TypeVar("T")

RESERVED_FOR_S = 600.0
"""Beyond its deadline a request has settled, or its process is gone."""

_RETRY_S = 5.0
_MAX_WARNED = 10_000
_FORGET_EVERY_S = 3600.0


class CreditStore:
    """The `CreditLedger` of one data folder.

    Args:
        database: Where.
        clock: The time.
    """

    def __init__(self, database: AccessDatabase, clock: Clock = time) -> None:
        self._database = database
        self._clock = clock
        self._steady = SteadyClock(clock)
        self._events: deque[UsageEvent] = deque()
        self._is_due = False
        self._is_closed = False
        self._warned: set[tuple[str, str]] = set()
        self._next_forget_s = 0.0

    def start(self, unread: Unread) -> None:
        """Charge what journals have beyond the file. Returns at once."""
        if self._database.exists():
            self._submit(lambda db: self._refill(unread(credit_rows.read_segments(db)), db))

    async def reserve(
        self, generation_id: str, principal: Principal, usd: Decimal, *, deadline_s: float
    ) -> bool:
        """Set money aside for a request.

        Args:
            generation_id: Of the request.
            principal: Who pays.
            usd: The most it can cost.
            deadline_s: Seconds after which it is over.

        Returns:
            Whether there is a reservation; there is none for who pays later and has no limit.

        Raises:
            InsufficientCredits: That much is not there.
            Unavailable: The file cannot be used.
        """
        if principal.spend_limit is None and principal.account_id is None:
            return False
        now_s = self._clock.time()
        wanted = Reservation(
            generation_id=generation_id,
            api_key_id=principal.api_key_id,
            account_id=principal.account_id,
            usd=usd,
            expires_s=now_s + deadline_s + RESERVED_FOR_S,
        )
        self._flush()
        job = partial(credit_rows.reserve, wanted=wanted, limit=principal.spend_limit, now_s=now_s)
        try:
            room = await _answer(self._database.run(job))
        except asyncio.CancelledError:  # the job runs nevertheless
            self.release(generation_id)
            raise
        if room.refusal is not None:
            raise InsufficientCredits(room.refusal)
        self._warn(room)
        return room.is_reserved

    def release(self, generation_id: str) -> None:
        """Give back what a request has reserved that will not be charged. Never raises."""
        if not self._is_closed:
            self._submit(partial(credit_rows.release, generation_id=generation_id))

    def record(self, event: UsageEvent) -> None:
        """Charge a `usage.final` or `usage.adjustment`. Never blocks, never raises."""
        if self._is_closed or not self._database.exists():
            return
        self._events.append(event)
        if not self._is_due:
            self._flush()

    async def add(self, account_id: str, usd: Decimal, *, event_id: str, note: str = "") -> Balance:
        """Credit an account; from its first credit on it pays in advance.

        Args:
            account_id: Whose.
            usd: How much; below 0 takes credit back.
            event_id: The same credit of the same id changes nothing.
            note: For people.

        Raises:
            Conflict: The id is that of a credit of another amount or account.
            Unavailable: The file cannot be used.
        """
        movement = Movement(
            event_id=event_id,
            at_s=self._clock.time(),
            kind="credit",
            account_id=account_id,
            api_key_id=None,
            usd=usd,
            note=note,
        )
        return await _answer(self._database.run(partial(credit_rows.add, movement=movement)))

    async def balance(self, account_id: str) -> Balance | None:
        """What an account has; `None` if it pays later."""
        if not self._database.exists():
            return None
        self._flush()
        job = partial(credit_rows.balance, account_id=account_id)
        return await _answer(self._database.read(job))

    async def movements(self, account_id: str, limit: int = 100) -> list[Movement]:
        """What has changed an account's balance, the newest first."""
        if not self._database.exists():
            return []
        job = partial(credit_rows.movements, account_id=account_id, limit=limit)
        return await _answer(self._database.read(job))

    async def close(self) -> None:
        """Write what is left and close, after the journal. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._flush()
        await asyncio.to_thread(self._database.close)
        if self._events:
            log.error("credits.left", num_events=len(self._events))  # the journal has them

    def _submit(self, job: Callable[[sqlite3.Connection], object]) -> None:
        """Run a job that nobody waits for."""
        self._database.submit(job).add_done_callback(_log_failure)

    def _flush(self) -> None:
        """Have every event charged that waits; what fails waits on."""
        if self._events:
            self._is_due = True
            self._database.submit(self._charge).add_done_callback(self._charged)

    def _charge(self, db: sqlite3.Connection) -> int:
        self._is_due = False  # first: whoever comes from now on may be too late for this one
        now_s = self._steady.time()
        events = tuple(self._events)
        for event in events:
            credit_rows.charge(db, event, now_s)
        if now_s >= self._next_forget_s:
            self._next_forget_s = now_s + _FORGET_EVERY_S
            credit_rows.forget(db, now_s)
        return len(events)

    def _charged(self, future: "Future[int]") -> None:
        """In the database's thread, when the charges are in the file."""
        if future.exception() is not None:
            _log_failure(future)
            return
        for _ in range(future.result()):
            self._events.popleft()

    def _refill(
        self,
        unread: Iterator[tuple[Sequence[UsageEvent], Mapping[str, int]]],
        db: sqlite3.Connection,
    ) -> None:
        """Charge one more batch, and come back for the next when others had their turn."""
        batch = next(unread, None)
        if batch is None or self._is_closed:
            return
        events, segments = batch
        now_s = self._steady.time()
        for event in events:
            credit_rows.charge(db, event, now_s)
        credit_rows.note_segments(db, segments)
        self._submit(partial(self._refill, unread))

    def _warn(self, room: credit_rows.Headroom) -> None:
        """Tell the operator, once, when four fifths are used."""
        for owner, since in room.low:
            if (owner, since) not in self._warned and len(self._warned) < _MAX_WARNED:
                self._warned.add((owner, since))
                log.warning("credits.low", owner=owner)


async def _answer(asked: Awaitable[T]) -> T:
    """The answer of the file.

    Raises:
        Unavailable: It cannot be used; the cause is why.
    """
    try:
        return await asked
    except (sqlite3.Error, OSError) as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> Unavailable:
    log.error("credits.unavailable", error=str(error))
    return Unavailable(
        "credits cannot be used now", code="credits_unavailable", retry_after_s=_RETRY_S
    )


def _log_failure(future: "Future[Any]") -> None:
    error = future.exception()
    if error is not None:
        log.error("credits.failed", error=str(error), kind=type(error).__name__)

"""What requests have cost, on its way to Redis: each once, whatever fails.

Charges wait in memory while Redis cannot be reached. A server that dies meanwhile has them in its
journal, and charges them when it starts again.
"""

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice

import structlog

from provider_core import Unread, UsageEvent
from provider_redis.amounts import to_text
from provider_redis.connection import RedisConnection, RedisFailedError

log = structlog.get_logger()

_DAY_S = 86400.0
_RETRY_S = 1.0
_BATCH = 64  # charges of one step, which keeps Redis from others for a millisecond
_KEPT_CHARGES = 1000  # of an account, to be listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What became of a request.

    Attributes:
        event_id: Unique: what comes twice counts once. Empty if there is nothing to charge.
        generation_id: Whose reservation ends; empty if none does.
        api_key_id: Who used it.
        account_id: Who pays; empty for nobody.
        usd: What it cost, below 0 for what is given back.
        at_s: Unix time.
        note: The movement, in JSON.
        refers_to: The event that this one adjusts; empty for none.
    """

    event_id: str = ""
    generation_id: str = ""
    api_key_id: str
    account_id: str
    usd: Decimal = Decimal(0)
    at_s: float = 0.0
    note: str = ""
    refers_to: str = ""


def charge_of(event: UsageEvent) -> Charge:
    """Read a usage event."""
    is_final = event["event"] == "usage.final"
    usd = Decimal(event["cost"] if is_final else event["cost_delta"])
    at_s = datetime.fromisoformat(event["timestamp"]).replace(tzinfo=UTC).timestamp()
    note = {
        "event_id": event["event_id"],
        "kind": "charge" if is_final else "adjustment",
        "usd": f"{-usd:f}",
        "api_key_id": event["api_key_id"],
        "note": event.get("model"),
    }
    return Charge(
        event_id=event["event_id"],
        generation_id=event["generation_id"] if is_final else "",
        api_key_id=event["api_key_id"],
        account_id=event["account_id"] or "",
        usd=usd,
        at_s=at_s,
        note=f"{at_s * 1e6:.0f} {json.dumps(note)}",
        refers_to=event.get("refers_to", ""),
    )


def _readable(events: Iterable[UsageEvent]) -> list[Charge]:
    """The charges of events; one that cannot be read keeps no other out."""
    charges = []
    for event in events:
        try:
            charges.append(charge_of(event))
        except Exception:
            log.exception("credits.skipped", event_id=event.get("event_id"))
    return charges


class Charges:
    """Those of one server.

    Args:
        connection: To Redis.
        retention_days: For which an event is known and not charged again; older ones never are.
    """

    def __init__(self, connection: RedisConnection, *, retention_days: float) -> None:
        self._connection = connection
        self._retention_s = retention_days * _DAY_S
        self._waiting: deque[Charge] = deque()
        self._lock = asyncio.Lock()
        self._flushing: asyncio.Task[None] | None = None
        self._catching_up: asyncio.Task[None] | None = None
        self._is_failing = False

    def add(self, charge: Charge) -> None:
        """Have one charged."""
        self._waiting.append(charge)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())

    def catch_up(self, unread: Unread) -> None:
        """Have charged what journals have and Redis has not."""
        self._catching_up = asyncio.create_task(self._charge_unread(unread))

    async def settle(self) -> None:
        """Charge whatever waits.

        Raises:
            RedisFailedError: It waits on.
        """
        if not self._waiting:
            return
        async with self._lock:
            while batch := list(islice(self._waiting, _BATCH)):
                await self._charge(batch)
                for _ in batch:
                    self._waiting.popleft()

    async def close(self) -> None:
        """Charge what can be charged. Idempotent."""
        tasks = [task for task in (self._catching_up, self._flushing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(RedisFailedError):
            await self.settle()
        if self._waiting:
            log.error("credits.left", num_events=len(self._waiting))  # the journal has them

    async def _flush(self) -> None:
        """Charge whatever waits, however long that takes."""
        try:
            while self._waiting:
                try:
                    await self.settle()
                except RedisFailedError as error:
                    await self._wait(error)
                else:
                    self._is_failing = False
        finally:
            self._flushing = None

    async def _charge_unread(self, unread: Unread) -> None:
        """Charge journals; anew from where the sizes say when Redis fails in between.

        A file with an event that cannot be read counts as unread: another version may read it.
        """
        segments = [self._connection.key("segments"), self._connection.key("segments-noted")]
        while True:
            try:
                known = await self._connection.command("HGETALL", segments[0])
                batches = unread({name: int(size) for name, size in known.items()})
                num_skipped = 0  # of the file that is being read
                while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                    events, sizes = batch
                    charges = _readable(events)
                    num_skipped += len(events) - len(charges)
                    for start in range(0, len(charges), _BATCH):
                        await self._charge(charges[start : start + _BATCH])
                    if sizes and num_skipped:
                        num_skipped = 0
                    elif sizes:
                        words = [word for pair in sizes.items() for word in pair]
                        keep_s = int(self._retention_s)
                        await self._connection.run("note_segments", segments, [keep_s, *words])
            except RedisFailedError as error:
                await self._wait(error)
            except Exception:  # the next start tries it again
                log.exception("credits.journals_unread")
                return
            else:
                return

    async def _charge(self, batch: Sequence[Charge]) -> None:
        keys: list[str] = []
        arguments: list[object] = [int(self._retention_s * 1e6), _KEPT_CHARGES]
        for charge in batch:
            key = self._connection.key
            keys += [
                key("event", charge.event_id),
                key("account", charge.account_id),
                key("account-charges", charge.account_id),
                key("key-spending", charge.api_key_id),
                key("key-held", charge.api_key_id),
                key("key-lapses", charge.api_key_id),
                key("account-held", charge.account_id),
                key("account-lapses", charge.account_id),
                key("event", charge.refers_to),
            ]
            arguments += [
                charge.generation_id,
                to_text(charge.usd) if charge.usd else "",
                int(charge.at_s * 1e6),
                int(charge.at_s // _DAY_S),
                charge.note,
            ]
        await self._connection.run("charge", keys, arguments)

    async def _wait(self, error: RedisFailedError) -> None:
        if not self._is_failing:  # once until it works again
            self._is_failing = True
            log.error("credits.waiting", error=str(error), num_events=len(self._waiting))
        await asyncio.sleep(_RETRY_S)

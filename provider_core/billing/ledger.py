"""The ledger: what each generation used and cost, to be looked up while the provider serves.

A SQLite file in the data folder, filled from the usage events and never the truth itself: that is
the journal, from which a start adds what a crash kept out. Numbers, ids and labels only, as in the
events. One thread owns the connection, so nobody waits for a disk on the event loop, and whoever
asks sees everything recorded before.

Money is two integers, billionths of a dollar and billionths of those, so that sums are exact.
"""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog

from provider_core.billing.journal.segment import segments_by_boot
from provider_core.billing.journal.unread import Batch, unread_events
from provider_core.billing.ledger_rows import (
    COLUMNS,
    SCHEMA,
    VERSION,
    Activity,
    Generation,
    Owner,
    Spending,
    activity_of,
    money,
    row_of,
    split_money,
    sums_of,
)
from provider_core.clocks import SteadyClock
from provider_core.errors import Unavailable
from provider_core.interfaces import Clock

log = structlog.get_logger()

_DAY_S = 86400.0
_PURGE_EVERY_S = 3600.0
_BUSY_S = 5.0  # another process of the same data folder may be writing
_RETRY_S = 5.0  # after which a lookup has written what could not be
_MAX_WAITING = 10_000  # events that could not be written; the journal has the older ones
_T = TypeVar("_T")

_ADD_GENERATION = f"INSERT OR IGNORE INTO generations VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
_ADD_TO_DAY = """
INSERT INTO days VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (api_key_id, account_id, day, model) DO UPDATE SET
    requests = requests + excluded.requests,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
    cost_nano = cost_nano + excluded.cost_nano,
    cost_atto = cost_atto + excluded.cost_atto
"""
_FIND_DAY = """
SELECT api_key_id, coalesce(account_id, ''), date(CAST(finished_s AS INTEGER), 'unixepoch'), model
FROM generations WHERE generation_id = ?
"""
_ADD_ADJUSTMENT = "INSERT OR IGNORE INTO adjustments VALUES (?, ?)"
_ADJUST_GENERATION = """
UPDATE generations SET cost_nano = cost_nano + ?, cost_atto = cost_atto + ?
WHERE generation_id = ?
"""
_ADJUST_DAY = """
UPDATE days SET cost_nano = cost_nano + ?, cost_atto = cost_atto + ?
WHERE api_key_id = ? AND account_id = ? AND day = ? AND model = ?
"""


class UsageLedger:
    """Generations of the last weeks, and what each key has spent in all.

    Args:
        path: Of the file; made if it is missing.
        retention_days: After which a generation is forgotten and only its cost is kept.
        journal_dir: Of the journal, if one is kept.
        boot_id: Whose events are recorded as they happen.
        clock: The time.
    """

    def __init__(
        self,
        path: Path,
        *,
        retention_days: float,
        journal_dir: Path | None = None,
        boot_id: str = "",
        clock: Clock = time,
    ) -> None:
        self._path = path
        self._journal_dir = journal_dir
        self._boot_id = boot_id
        self._retention_s = retention_days * _DAY_S
        self._clock = clock
        self._steady = SteadyClock(clock)
        self._events: deque[Mapping[str, object]] = deque()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="usage-ledger")
        self._db: sqlite3.Connection | None = None
        self._next_purge_s = 0.0
        self._retry_s = 0.0  # monotonic
        self._is_due = False  # a flush is on its way
        self._has_lost = False  # an event that the journal still has
        self._is_closed = False

    def start(self) -> None:
        """Open the file, and add what the journals of earlier boots have beyond it.

        Returns at once. A file that cannot be used is logged, and every lookup then fails.
        """
        self._submit(self._open)
        refill = self._unread()
        self._submit(lambda: self._refill(refill))

    def record(self, event: Mapping[str, object]) -> None:
        """Take a `usage.final` or `usage.adjustment`. Never blocks, never raises."""
        if self._is_closed:
            return
        self._events.append(event)
        if not self._is_due:
            self._is_due = True
            self._submit(self._flush)

    async def find(self, generation_id: str, owner: Owner) -> Generation | None:
        """Look up a generation; `None` if there is none of this id, or it is somebody else's.

        Raises:
            Unavailable: The file cannot be read.
        """
        names = ", ".join(COLUMNS)
        rows = await self._query(
            f"SELECT {names} FROM generations"  # noqa: S608 - the names are ours
            " WHERE generation_id = ? AND (api_key_id = ? OR account_id = ?)",
            (generation_id, owner.api_key_id, owner.account_id),
        )
        return None if not rows else Generation(dict(zip(COLUMNS, rows[0], strict=True)))

    async def spending(self, owner: Owner) -> Spending:
        """What a key, or a whole account, has spent.

        Raises:
            Unavailable: The file cannot be read.
        """
        column, value = owner.scope
        sums = ", ".join(
            f"SUM(cost_{unit}) FILTER (WHERE day >= ?)" for unit in ("nano", "atto") for _ in "123"
        )
        since = Spending.begins(self._clock.time())
        ((nano, atto, *recent),) = await self._query(
            f"SELECT SUM(cost_nano), SUM(cost_atto), {sums} FROM days WHERE {column} = ?",  # noqa: S608 - two names
            (*since, *since, value),
        )
        day, week, month = map(money, recent[:3], recent[3:])
        return Spending(total=money(nano, atto), day=day, week=week, month=month)

    async def activity(self, owner: Owner, first: str, last: str) -> list[Activity]:
        """What was used of each model on each day, the newest day first.

        Args:
            owner: Whose.
            first: `YYYY-MM-DD` in UTC.
            last: The same, included.

        Raises:
            Unavailable: The file cannot be read.
        """
        column, value = owner.scope
        rows = await self._query(
            "SELECT day, model, SUM(requests), SUM(prompt_tokens), SUM(completion_tokens),"  # noqa: S608
            f" SUM(reasoning_tokens), SUM(cost_nano), SUM(cost_atto) FROM days WHERE {column} = ?"
            " AND day BETWEEN ? AND ? GROUP BY day, model ORDER BY day DESC, model",
            (value, first, last),
        )
        return [activity_of(row) for row in rows]

    def close(self, *, has_all: bool = True) -> None:
        """Write what is left and close, after the journal. Idempotent; blocks.

        Args:
            has_all: Every event that the journal has of this boot was recorded.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._has_lost = self._has_lost or not has_all
        for job in (self._flush, self._mark_own, self._close):
            self._submit(job)
        self._executor.shutdown()

    def _submit(self, job: Callable[[], _T]) -> "Future[_T]":
        return self._executor.submit(job)

    async def _query(self, sql: str, values: tuple[object, ...]) -> list[Any]:  # rows
        def run() -> list[Any]:
            if self._db is None:
                raise sqlite3.OperationalError("not open")
            if self._events and self._clock.monotonic() >= self._retry_s:
                self._flush()
            return self._db.execute(sql, values).fetchall()

        try:
            return await asyncio.wrap_future(self._submit(run))
        except (sqlite3.Error, RuntimeError):  # RuntimeError: closed
            log.exception("ledger.unreadable")
            raise Unavailable(
                "usage records cannot be read now", code="ledger_unavailable", retry_after_s=5
            ) from None

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
            db = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")  # what is lost is in the journal
            ((version,),) = db.execute("PRAGMA user_version")
            if version not in (0, VERSION):
                raise sqlite3.DatabaseError(f"version {version} is not of this program")
            db.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            log.error("ledger.unusable", error=str(error))  # noqa: TRY400 - of the operating system
            return
        self._db = db

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _flush(self) -> None:
        """Write every event that waits, in one transaction.

        What a busy file or a full disk keeps out waits for the next record or lookup.
        """
        self._is_due = False  # first: whoever comes from now on may be too late for this one
        events = []
        while self._events:
            events.append(self._events.popleft())
        if events:
            self._write(events)
            self._purge()

    def _write(
        self, events: Sequence[Mapping[str, object]], segments: Mapping[str, int] | None = None
    ) -> bool:
        db = self._db
        if db is None:
            self._has_lost = True
            return False
        horizon_s = self._steady.time() - self._retention_s
        try:
            with _transaction(db):
                for event in events:
                    self._add(db, event, horizon_s)
                db.executemany(
                    "INSERT OR REPLACE INTO segments VALUES (?, ?)", (segments or {}).items()
                )
        except sqlite3.Error as error:
            self._has_lost = True
            log.error("ledger.failed", error=str(error))  # noqa: TRY400 - SQLite's own words
            if isinstance(error, sqlite3.OperationalError):  # no fault of an event
                self._events.extendleft(reversed(events[-_MAX_WAITING:]))
                self._retry_s = self._clock.monotonic() + _RETRY_S
            return False
        return True

    def _add(self, db: sqlite3.Connection, event: Mapping[str, object], horizon_s: float) -> None:
        """Add an event; one that cannot be read keeps no other out.

        Raises:
            sqlite3.Error: The file cannot be written.
        """
        try:
            if _finished_s(event) >= horizon_s:
                _insert(db, event)
        except sqlite3.Error:
            raise
        except Exception:
            self._has_lost = True
            log.exception("ledger.skipped", event_id=event.get("event_id"))

    def _purge(self) -> None:
        """Forget what is older than the retention; its day keeps the sums."""
        now_s = self._steady.time()
        db = self._db
        if db is None or now_s < self._next_purge_s:
            return
        self._next_purge_s = now_s + _PURGE_EVERY_S
        horizon = (now_s - self._retention_s,)
        with suppress(sqlite3.Error), _transaction(db):  # an hour later is early enough
            db.execute("DELETE FROM generations WHERE finished_s < ?", horizon)
            db.execute("DELETE FROM adjustments WHERE finished_s < ?", horizon)

    def _unread(self) -> Iterator[Batch]:
        """What the journals of other boots say, as far as they have grown since last read."""
        if self._db is not None and self._journal_dir is not None:
            known = dict(self._db.execute("SELECT name, size FROM segments"))
            yield from unread_events(self._journal_dir, known, but_boot=self._boot_id)

    def _refill(self, unread: Iterator[Batch]) -> None:
        """Write one more batch, and come back for the next when others had their turn."""
        try:
            batch = next(unread, None)
        except Exception:  # whatever a damaged file makes of us
            log.exception("ledger.failed", error="a journal cannot be read")
            return
        if batch is not None and self._write(*batch) and not self._is_closed:
            self._submit(lambda: self._refill(unread))

    def _mark_own(self) -> None:
        """Note that the files of this boot hold nothing new."""
        if self._has_lost or self._journal_dir is None:
            return
        with suppress(OSError):
            own = segments_by_boot(self._journal_dir).get(self._boot_id, {})
            self._write([], {path.name: path.stat().st_size for path in own.values()})


class _transaction:  # noqa: N801 - used as a function
    """All or nothing; `sqlite3`'s own context does not begin one."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _insert(db: sqlite3.Connection, event: Mapping[str, Any]) -> None:
    """Add an event; one that is known changes nothing. All of it is read before any is written."""
    if event["event"] == "usage.final":
        row, sums = row_of(event, _finished_s(event)), sums_of(event)
        if db.execute(_ADD_GENERATION, row).rowcount == 1:
            db.execute(_ADD_TO_DAY, sums)
        return
    known, amount = (event["event_id"], _finished_s(event)), split_money(event["cost_delta"])
    found = db.execute(_FIND_DAY, (event["generation_id"],)).fetchone()
    if found is not None and db.execute(_ADD_ADJUSTMENT, known).rowcount == 1:
        db.execute(_ADJUST_GENERATION, (*amount, event["generation_id"]))
        db.execute(_ADJUST_DAY, (*amount, *found))


def _finished_s(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).replace(tzinfo=UTC).timestamp()

"""The books: every copy of every bill that was found, in a temporary SQLite database.

An event may be found many times, in a journal, in the log and at a collector. Copies of the same
content are one event; of contents that differ the first intact one of the most trusted source
counts, and the rest is for somebody to look at. This is the reference consumer of the usage log:
reading lines again or in another order changes no sum.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Literal, Self

import orjson

from provider_core.billing.audit.line_rules import Fault, faults
from provider_core.billing.audit.sources import Item
from provider_core.billing.events import content_sha256
from provider_core.billing.money import add_money, format_money

Source = Literal["journal", "log", "collector"]

_TRUST: dict[Source, int] = {"journal": 0, "log": 1, "collector": 2}
_SCHEMA = """
CREATE TABLE copies (
    event_id TEXT, content TEXT, source TEXT, trust INTEGER, place TEXT, times INTEGER,
    is_intact INTEGER, is_valid INTEGER, body TEXT,
    PRIMARY KEY (event_id, content, source)
);
CREATE TABLE faults (kind TEXT, subject TEXT, detail TEXT, timestamp TEXT);
CREATE TABLE opened (generation_id TEXT PRIMARY KEY, received_s REAL, place TEXT);
CREATE TABLE heartbeats (boot_id TEXT, last_seq INTEGER, body TEXT, PRIMARY KEY (boot_id, body));
CREATE TABLE access (generation_id TEXT PRIMARY KEY, place TEXT, body TEXT);
CREATE TABLE kept (boot_id TEXT PRIMARY KEY, after_seq INTEGER);
CREATE TABLE deliveries (boot_id TEXT, seq INTEGER, delivery TEXT, PRIMARY KEY (boot_id, seq));
CREATE TABLE entries (
    event_id TEXT PRIMARY KEY, kind TEXT, refers_to TEXT, generation_id TEXT, timestamp TEXT,
    boot_id TEXT, seq INTEGER, api_key_id TEXT, account_id TEXT, model TEXT, body TEXT,
    is_intact INTEGER
);
CREATE VIEW bills AS SELECT * FROM entries WHERE is_intact;
CREATE INDEX entries_by_boot ON entries (boot_id, seq);
CREATE INDEX entries_by_generation ON entries (generation_id);
"""
"""`copies`: by id, content and source. `kept`: after which `seq` a journal still has a boot.
`entries`: the one content of each event that counts. `bills`: those that nobody altered, the only
ones to be billed. `faults`: what lines do wrong by themselves.
"""
_NAMES = ("refers_to", "generation_id", "timestamp", "boot_id", "seq")
_OWNERS = ("api_key_id", "account_id", "model")


@dataclass(frozen=True, slots=True)
class Period:
    """A span of accounting time.

    Attributes:
        since: First day or time, RFC 3339 in UTC without its `Z`; empty for no limit.
        until: The same, excluded.
    """

    since: str = ""
    until: str = ""

    def holds(self, timestamp: str) -> bool:
        """Whether a line's timestamp lies in it."""
        return timestamp >= self.since and (not self.until or timestamp < self.until)


ALWAYS = Period()


class ExactSum:
    """The SQL aggregate `exact_sum`: money as text, in and out."""

    def __init__(self) -> None:
        self._total = Decimal(0)

    def step(self, amount: object) -> None:
        """Add one, or nothing."""
        if isinstance(amount, str):
            self._total = add_money(self._total, Decimal(amount))

    def finalize(self) -> str:
        """The sum."""
        return format_money(self._total)


class Books:
    """Bills of any sources; a context that ends them.

    Attributes:
        sources: What was read.
    """

    def __init__(self) -> None:
        self.sources: set[Source] = set()
        self._db = sqlite3.connect("", isolation_level=None)  # on disk, and gone when closed
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(_SCHEMA)
        self._db.create_aggregate("exact_sum", 1, ExactSum)  # type: ignore[arg-type]  # typeshed knows sums of integers only
        self._is_settled = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._db.close()

    @property
    def num_events(self) -> int:
        """Finals and adjustments, each once."""
        ((count,),) = self.query("SELECT count(*) FROM entries")
        return int(count)

    def read(self, source: Source, items: Iterable[Item]) -> int:
        """Add what a source says.

        Returns:
            How many things of use here it said; access lines alone are none.

        Raises:
            OSError: It cannot be read.
        """
        self.sources.add(source)
        self._is_settled = False
        num_said = 0
        self._db.execute("BEGIN")
        for item in items:
            self._add(source, item)
            num_said += item.kind != "access"
        self._db.execute("COMMIT")
        return num_said

    def read_access(self, items: Iterable[Item]) -> int:
        """Add the access lines among what a source says, and nothing else.

        Returns:
            How many there were.

        Raises:
            OSError: It cannot be read.
        """
        num_said = 0
        for item in items:
            if item.kind == "access":
                self._add("log", item)
                num_said += 1
        return num_said

    def query(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        """Ask the tables of `_SCHEMA`; the rows."""
        self._settle()
        return self._db.execute(sql, values).fetchall()

    def events(self, period: Period = ALWAYS, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """What is billed, in order of time: each event once, with word of its delivery.

        Args:
            period: Of their timestamps.
            kind: `usage.final` or `usage.adjustment`; `None` means both.
        """
        self._settle()
        rows = self._db.execute(
            "SELECT kind, timestamp, body, delivery FROM bills"
            " LEFT JOIN deliveries USING (boot_id, seq) ORDER BY timestamp, event_id"
        )
        for found, timestamp, body, delivery in rows:
            if period.holds(timestamp) and kind in (None, found):
                event: dict[str, Any] = orjson.loads(body)
                if event.get("delivery") == "unknown" and delivery is not None:
                    event["delivery"] = delivery
                yield event

    def find(self, event_id: str) -> dict[str, Any] | None:
        """The event of an id, if it was found as it was written."""
        rows = self.query("SELECT body FROM bills WHERE event_id = ?", (event_id,))
        return None if not rows else orjson.loads(rows[0][0])

    def _add(self, source: Source, item: Item) -> None:
        fields = item.fields
        match item.kind:
            case "event":
                self._add_event(source, item)
            case "heartbeat" if self._is_valid(item, "boot_id"):
                self._insert(
                    "heartbeats", fields["boot_id"], fields["last_seq"], _canonical(fields)
                )
            case "admission" if self._is_valid(item, "generation_id"):
                received_s = datetime.fromisoformat(fields["received_at"]).timestamp()
                self._insert("opened", fields["generation_id"], received_s, item.where)
            case "access":
                if isinstance(fields.get("generation_id"), str):
                    self._insert("access", fields["generation_id"], item.where, _canonical(fields))
            case "open":
                self._insert(
                    "opened", fields["generation_id"], fields["received_wall_s"], item.where
                )
            case "header":
                self._insert("kept", fields["boot_id"], fields["last_seq"])
            case "delivery":
                self._insert("deliveries", fields["boot_id"], fields["seq"], fields["delivery"])
            case "unreadable" | "torn_tail":
                self._db.execute(
                    "INSERT INTO faults VALUES (?, ?, ?, NULL)",
                    (item.kind, item.where, "cannot be read"),
                )

    def _add_event(self, source: Source, item: Item) -> None:
        fields = item.fields
        event_id = fields.get("event_id")
        found = faults(item.line, fields)
        self._note(found, item, str(event_id))
        if not isinstance(event_id, str):
            return
        kinds = {fault.kind for fault in found}
        self._db.execute(
            "INSERT INTO copies VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET times = times + 1",
            (
                event_id,
                content_sha256(fields),
                source,
                _TRUST[source],
                item.where,
                not kinds & {"invalid", "altered"},
                "invalid" not in kinds,
                _canonical(fields),
            ),
        )

    def _is_valid(self, item: Item, subject: str) -> bool:
        """Whether a line breaks no rule; note those that it breaks, of the field that names it."""
        found = faults(item.line, item.fields)
        self._note(found, item, str(item.fields.get(subject)))
        return not found

    def _note(self, found: Sequence[Fault], item: Item, subject: str) -> None:
        """Note what a line does wrong; only one that is as it was written can say when."""
        is_intact = all(fault.kind == "cost_mismatch" for fault in found)
        timestamp = item.fields["timestamp"] if is_intact else None
        self._db.executemany(
            "INSERT INTO faults VALUES (?, ?, ?, ?)",
            ((fault.kind, subject, f"{item.where}: {fault.detail}", timestamp) for fault in found),
        )

    def _insert(self, table: str, *values: object) -> None:
        places = ", ".join("?" * len(values))
        self._db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({places})", values)  # noqa: S608 - our tables

    def _settle(self) -> None:
        """Decide which content of each event counts."""
        if self._is_settled:
            return
        self._is_settled = True
        names = [f"json_extract(body, '$.{name}')" for name in (*_NAMES, *_OWNERS)]
        self._db.executescript(
            f"""
            DELETE FROM entries;
            INSERT INTO entries
            SELECT event_id, json_extract(body, '$.event'), {", ".join(names)}, body, is_intact
            FROM (
                SELECT *, row_number() OVER (
                    PARTITION BY event_id ORDER BY is_intact DESC, trust, rowid
                ) AS place_in_line FROM copies WHERE is_valid
            ) WHERE place_in_line = 1;
            """  # noqa: S608 - names of ours
        )


def _canonical(fields: dict[str, Any]) -> str:
    return orjson.dumps(fields).decode("utf-8", "replace")

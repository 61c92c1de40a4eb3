"""Comparing what was found: which bills are missing, doubled, altered or do not add up."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import orjson

from provider_core.billing.audit.books import ALWAYS, Books, Period, Source
from provider_core.billing.money import add_money, format_money

Kind = Literal[
    "missing_in_log",
    "missing_in_journal",
    "missing_in_collector",
    "duplicates",
    "conflicts",
    "seq_gaps",
    "open_without_final",
    "heartbeat_mismatch",
    "cost_mismatch",
    "usage_vs_access_mismatch",
    "adjusted_without_final",
    "invalid",
    "altered",
    "unreadable",
    "torn_tail",
]

_MISSING_IN: dict[Source, Kind] = {
    "journal": "missing_in_journal",
    "log": "missing_in_log",
    "collector": "missing_in_collector",
}
_HARMLESS = {"duplicates", "torn_tail"}  # a crash may do either
_COMPARED = ("prompt_tokens", "completion_tokens", "cost", "status", "model")
_SUMS = ("finals", "adjustments", "billable_finals", "sum_prompt_tokens", "sum_completion_tokens")


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that somebody should know.

    Attributes:
        kind: What it is.
        subject: `event_id`, generation, boot and `seq`, or file and line.
        detail: Where it was found and how it differs.
    """

    kind: Kind
    subject: str
    detail: str

    @property
    def is_discrepancy(self) -> bool:
        """Whether it puts a bill in doubt; else it is for information."""
        return self.kind not in _HARMLESS


def verify(books: Books, period: Period = ALWAYS) -> list[Finding]:
    """What is wrong with lines by themselves, and contents that differ under one id.

    Args:
        books: What was read.
        period: Of the lines' timestamps; one that was altered cannot say when, and is in all.
    """
    return sorted([*_faults(books, period), *_conflicts(books, period)])


def reconcile(
    books: Books,
    period: Period = ALWAYS,
    *,
    now_s: float,
    max_request_s: float,
) -> list[Finding]:
    """Compare every source with every other and with its own control totals.

    Args:
        books: What was read.
        period: Only events of this time are reported.
        now_s: Unix seconds.
        max_request_s: An admission that is older should have been settled.
    """
    finals_before = now_s - max_request_s
    return sorted(
        [
            *_faults(books, period),
            *_conflicts(books, period),
            *_duplicates(books, period),
            *_missing(books, period),
            *_gaps(books, period),
            *_open(books, finals_before),
            *_heartbeats(books, period),
            *_access(books, period),
            *_orphans(books, period),
        ]
    )


def _faults(books: Books, period: Period) -> Iterator[Finding]:
    for kind, subject, detail, timestamp in books.query(
        "SELECT kind, subject, detail, timestamp FROM faults"
    ):
        if timestamp is None or period.holds(timestamp):
            yield Finding(kind, subject, detail)


def _conflicts(books: Books, period: Period) -> Iterator[Finding]:
    """Contents of one id that differ, although nobody altered either."""
    for event_id, timestamp, places in books.query(
        "SELECT event_id, json_extract(body, '$.timestamp'), group_concat(place, ', ')"
        " FROM copies WHERE is_intact GROUP BY event_id HAVING count(DISTINCT content) > 1"
    ):
        if period.holds(timestamp):
            yield Finding("conflicts", event_id, f"other contents: {places}")


def _duplicates(books: Books, period: Period) -> Iterator[Finding]:
    for event_id, source, times, timestamp in books.query(
        "SELECT event_id, source, times, json_extract(body, '$.timestamp')"
        " FROM copies WHERE times > 1"
    ):
        if period.holds(str(timestamp)):
            yield Finding("duplicates", event_id, f"{times} times in the {source}")


def _missing(books: Books, period: Period) -> Iterator[Finding]:
    """What one source has and another should have."""
    known: dict[str, dict[str, str]] = {}
    for event_id, source, place in books.query("SELECT event_id, source, place FROM copies"):
        known.setdefault(event_id, {})[source] = place
    kept = dict(books.query("SELECT boot_id, min(after_seq) FROM kept GROUP BY boot_id"))
    for event_id, timestamp, boot_id, seq in books.query(
        "SELECT event_id, timestamp, boot_id, seq FROM entries"
    ):
        found = known[event_id]
        if not period.holds(timestamp):
            continue
        for source, kind in _MISSING_IN.items():
            is_due = source != "journal" or seq > kept.get(boot_id, 0)
            if source in books.sources and source not in found and is_due:
                where = next(iter(found.values()))
                yield Finding(kind, event_id, f"{boot_id} seq {seq}, found in {where}")


def _gaps(books: Books, period: Period) -> Iterator[Finding]:
    """Numbers of a boot that nobody has, up to the last that anybody speaks of."""
    for boot_id, first, last in books.query(
        "SELECT boot_id, min(low), max(seq) FROM ("
        " SELECT boot_id, seq AS low, seq FROM bills"
        " UNION ALL SELECT boot_id, NULL, last_seq FROM heartbeats) GROUP BY boot_id"
    ):
        start = first if period.since and first is not None else 1
        kept = books.query("SELECT min(after_seq) FROM kept WHERE boot_id = ?", (boot_id,))
        if books.sources == {"journal"} and kept[0][0]:
            start = max(start, kept[0][0] + 1)
        found = books.query(
            "SELECT DISTINCT seq FROM entries WHERE boot_id = ? AND seq BETWEEN ? AND ?"
            " ORDER BY seq",
            (boot_id, start, last),
        )
        for seq in (*(seq for (seq,) in found), last + 1):
            if seq > start:
                numbers = f"{start}" if seq == start + 1 else f"{start} to {seq - 1}"
                yield Finding("seq_gaps", f"{boot_id} seq {numbers}", "no source has it")
            start = seq + 1


def _open(books: Books, before_s: float) -> Iterator[Finding]:
    for generation_id, place in books.query(
        "SELECT generation_id, place FROM opened WHERE received_s < ? AND generation_id NOT IN"
        " (SELECT generation_id FROM entries WHERE kind = 'usage.final')",
        (before_s,),
    ):
        yield Finding("open_without_final", generation_id, f"admitted in {place}")


def _heartbeats(books: Books, period: Period) -> Iterator[Finding]:
    """The first control totals of each boot that do not agree with its lines."""
    for (boot_id,) in books.query("SELECT DISTINCT boot_id FROM heartbeats"):
        rows = books.query(
            "SELECT body FROM heartbeats WHERE boot_id = ? ORDER BY last_seq", (boot_id,)
        )
        bodies = books.query(
            "SELECT seq, body FROM entries WHERE boot_id = ? ORDER BY seq DESC", (boot_id,)
        )
        if period.since and (not bodies or bodies[-1][0] > 1):
            continue  # its first lines lie before what was read
        sums = _Sums()
        for (heartbeat,) in rows:
            told = orjson.loads(heartbeat)
            while bodies and bodies[-1][0] <= told["last_seq"]:
                sums.add(orjson.loads(bodies.pop()[1]))
            differing = [
                f"{name} is {found}, not {told[name]}"
                for name, found in sums.told().items()
                if found != told[name]
            ]
            if differing:
                if period.holds(told["timestamp"]):
                    subject = f"{boot_id} up to seq {told['last_seq']}"
                    yield Finding("heartbeat_mismatch", subject, "; ".join(differing))
                break


def _access(books: Books, period: Period) -> Iterator[Finding]:
    for generation_id, place, access, final in books.query(
        "SELECT access.generation_id, place, access.body, entries.body FROM access"
        " LEFT JOIN entries ON entries.generation_id = access.generation_id"
        " AND kind = 'usage.final'"
    ):
        told = orjson.loads(access)
        if not period.holds(str(told.get("timestamp"))):
            continue
        if final is None:
            yield Finding("usage_vs_access_mismatch", generation_id, f"{place}: no final")
            continue
        billed = orjson.loads(final)
        differing = [
            f"{name} is {told.get(name)}, billed {billed[name]}"
            for name in _COMPARED
            if told.get(name) != billed[name]
        ]
        if differing:
            detail = f"{place}: {'; '.join(differing)}"
            yield Finding("usage_vs_access_mismatch", generation_id, detail)


def _orphans(books: Books, period: Period) -> Iterator[Finding]:
    for event_id, refers_to, timestamp in books.query(
        "SELECT event_id, refers_to, timestamp FROM entries WHERE kind = 'usage.adjustment'"
        " AND refers_to NOT IN (SELECT event_id FROM entries)"
    ):
        if period.holds(timestamp):
            yield Finding("adjusted_without_final", event_id, f"nobody has {refers_to}")


class _Sums:
    """What a heartbeat should say."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(_SUMS, 0)
        self._cost = Decimal(0)

    def add(self, event: dict[str, Any]) -> None:
        """Count an event."""
        counts = self._counts
        if event["event"] == "usage.adjustment":
            counts["adjustments"] += 1
            self._cost = add_money(self._cost, Decimal(event["cost_delta"]))
            return
        counts["finals"] += 1
        counts["billable_finals"] += event["billable"]
        counts["sum_prompt_tokens"] += event["prompt_tokens"]
        counts["sum_completion_tokens"] += event["completion_tokens"]
        self._cost = add_money(self._cost, Decimal(event["cost"]))

    def told(self) -> dict[str, object]:
        """By the heartbeat's names."""
        return {**self._counts, "sum_cost": format_money(self._cost)}

"""Credits, spending and reservations as rows; for jobs of `AccessDatabase`.

Amounts are decimal strings and are added here, exactly; each job is one transaction that keeps
other writers out, so that reading, adding and writing cannot be torn apart.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

from provider_core.errors import Conflict
from provider_core.quotas import SpendLimit, SpendReset
from provider_core.stores import Balance, Movement

_EXACT = Context(prec=60)
_ALL_DAYS = ""  # the day of a sum over all days
_LOW = Decimal("0.8")
_RETENTION_S = 35 * 86400.0  # of charges: as long as journals are kept, which bring them again


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Money set aside for a request.

    Attributes:
        usd: The most it can cost.
        expires_s: Unix time after which nobody is left who could settle it.
    """

    generation_id: str
    api_key_id: str
    account_id: str | None
    usd: Decimal
    expires_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """The answer to a wish to reserve.

    Attributes:
        refusal: Why not, if so.
        is_reserved: Whether there is anything to give back.
        low: What is used up to four fifths or more, and since when it has been counted.
    """

    refusal: str | None = None
    is_reserved: bool = False
    low: tuple[tuple[str, str], ...] = ()


def reserve(
    db: sqlite3.Connection, wanted: Reservation, limit: SpendLimit | None, now_s: float
) -> Headroom:
    """Set money aside if it is there."""
    db.execute("DELETE FROM reservations WHERE expires_s < ?", (now_s,))
    low = []
    if limit is not None:
        since = period_start(limit.reset, now_s)
        used = spent(db, wanted.api_key_id, since)
        left = limit.usd - used - _reserved(db, "api_key_id", wanted.api_key_id)
        if wanted.usd > left or left <= 0:
            period = "" if limit.reset is None else f" {limit.reset}"
            return Headroom(refusal=f"this API key's{period} limit of {limit.usd} USD is used up")
        if used >= limit.usd * _LOW:
            low.append((wanted.api_key_id, since))
    account = None if wanted.account_id is None else balance(db, wanted.account_id)
    if account is not None and wanted.account_id is not None:
        if wanted.usd > account.available or account.available < 0:
            return Headroom(refusal="the account's credits do not cover this request; add credits")
        if account.used >= account.bought * _LOW:
            low.append((wanted.account_id, str(account.bought)))
    if limit is None and account is None:
        return Headroom()
    db.execute(
        "INSERT OR REPLACE INTO reservations VALUES (?, ?, ?, ?, ?)",
        (
            wanted.generation_id,
            wanted.account_id,
            wanted.api_key_id,
            _text(wanted.usd),
            wanted.expires_s,
        ),
    )
    return Headroom(is_reserved=True, low=tuple(low))


def release(db: sqlite3.Connection, generation_id: str) -> None:
    """Give back what was reserved for a request."""
    db.execute("DELETE FROM reservations WHERE generation_id = ?", (generation_id,))


def charge(db: sqlite3.Connection, event: Mapping[str, Any], now_s: float) -> None:
    """Replace a request's reservation by what it cost; once for each event.

    A bill that is known with another cost is put right: the journal is the truth.
    """
    is_final = event["event"] == "usage.final"
    if is_final:
        release(db, event["generation_id"])
    usd = Decimal(event["cost"] if is_final else event["cost_delta"])
    at = datetime.fromisoformat(event["timestamp"]).replace(tzinfo=UTC)
    if at.timestamp() < now_s - _RETENTION_S:
        return
    movement = Movement(
        event_id=event["event_id"],
        at_s=at.timestamp(),
        kind="charge" if is_final else "adjustment",
        account_id=event["account_id"],
        api_key_id=event["api_key_id"],
        usd=-usd,
        note=event.get("model"),
    )
    is_new = usd and _insert(db, movement)
    due = usd if is_new else _correct(db, movement)
    if not due:
        return
    for day in (_ALL_DAYS, _billed_at(db, event, at).date().isoformat()):
        _add_spending(db, event["api_key_id"], day, due)
    row = db.execute("SELECT used FROM accounts WHERE id = ?", (event["account_id"],)).fetchone()
    if row is not None:
        used = _text(_EXACT.add(Decimal(row[0]), due))
        db.execute("UPDATE accounts SET used = ? WHERE id = ?", (used, event["account_id"]))


def forget(db: sqlite3.Connection, now_s: float) -> None:
    """Drop charges that no journal can bring again; their sums stay."""
    db.execute("DELETE FROM movements WHERE kind != 'credit' AND at_s < ?", (now_s - _RETENTION_S,))


def add(db: sqlite3.Connection, movement: Movement) -> Balance:
    """Credit an account, and say what it has then.

    Raises:
        Conflict: The id is that of another credit.
    """
    account_id = movement.account_id or ""
    _refuse_other(db, movement)
    if _insert(db, movement):
        db.execute("INSERT OR IGNORE INTO accounts VALUES (?, '0', '0')", (account_id,))
        ((bought,),) = db.execute("SELECT bought FROM accounts WHERE id = ?", (account_id,))
        total = _text(_EXACT.add(Decimal(bought), movement.usd))
        db.execute("UPDATE accounts SET bought = ? WHERE id = ?", (total, account_id))
    found = balance(db, account_id)
    return found or Balance(bought=Decimal(0), used=Decimal(0), reserved=Decimal(0))


def balance(db: sqlite3.Connection, account_id: str) -> Balance | None:
    """What an account has; `None` if it pays later."""
    row = db.execute("SELECT bought, used FROM accounts WHERE id = ?", (account_id,)).fetchone()
    if row is None:
        return None
    bought, used = map(Decimal, row)
    return Balance(bought=bought, used=used, reserved=_reserved(db, "account_id", account_id))


def movements(db: sqlite3.Connection, account_id: str, limit: int) -> list[Movement]:
    """What has changed an account's balance, the newest first."""
    rows = db.execute(
        "SELECT event_id, at_s, kind, account_id, api_key_id, usd, note FROM movements"
        " WHERE account_id = ? ORDER BY at_s DESC, event_id LIMIT ?",
        (account_id, limit),
    )
    return [
        Movement(
            event_id=event_id,
            at_s=at_s,
            kind=kind,
            account_id=account,
            api_key_id=api_key_id,
            usd=Decimal(usd),
            note=note,
        )
        for event_id, at_s, kind, account, api_key_id, usd, note in rows
    ]


def spent(db: sqlite3.Connection, api_key_id: str, since: str) -> Decimal:
    """What a key has spent since a day, or in all since ''.

    A day on which more was given back than spent, of a bill that is no longer known, counts as 0.
    """
    comparison = "day >= ?" if since else "day = ?"
    rows = db.execute(
        f"SELECT usd FROM spending WHERE api_key_id = ? AND {comparison}",  # noqa: S608 - two texts
        (api_key_id, since),
    )
    if not since:
        return _sum(rows)
    return _sum((max(Decimal(usd), Decimal(0)),) for (usd,) in rows)


def period_start(reset: SpendReset | None, now_s: float) -> str:
    """The day on which a limit was last counted from 0; '' if it never is."""
    day = datetime.fromtimestamp(now_s, UTC).date()
    match reset:
        case None:
            return _ALL_DAYS
        case "daily":
            return day.isoformat()
        case "weekly":
            return (day - timedelta(days=day.weekday())).isoformat()
        case "monthly":
            return day.replace(day=1).isoformat()


def read_segments(db: sqlite3.Connection) -> dict[str, int]:
    """Files of journals that were read, and how long they were."""
    return dict(db.execute("SELECT name, size FROM segments").fetchall())


def note_segments(db: sqlite3.Connection, segments: Mapping[str, int]) -> None:
    """Note such files."""
    db.executemany("INSERT OR REPLACE INTO segments VALUES (?, ?)", segments.items())


def _insert(db: sqlite3.Connection, movement: Movement) -> bool:
    row = (
        movement.event_id,
        movement.at_s,
        movement.kind,
        movement.account_id,
        movement.api_key_id,
        _text(movement.usd),
        movement.note,
    )
    return (
        db.execute("INSERT OR IGNORE INTO movements VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount
        == 1
    )


def _correct(db: sqlite3.Connection, movement: Movement) -> Decimal:
    """Give a known bill the cost that this one says; what it lacked."""
    of_this = (movement.event_id,)
    row = db.execute("SELECT usd FROM movements WHERE event_id = ?", of_this).fetchone()
    if row is None or movement.kind != "charge":
        return Decimal(0)
    db.execute("UPDATE movements SET usd = ? WHERE event_id = ?", (_text(movement.usd), *of_this))
    return _EXACT.subtract(Decimal(row[0]), movement.usd)


def _refuse_other(db: sqlite3.Connection, movement: Movement) -> None:
    row = db.execute(
        "SELECT account_id, usd FROM movements WHERE event_id = ?", (movement.event_id,)
    ).fetchone()
    if row is not None and (row[0], Decimal(row[1])) != (movement.account_id, movement.usd):
        raise Conflict(
            f"{movement.event_id} is a payment of another amount or account, and was credited",
            param="id",
            code="payment_conflict",
        )


def _billed_at(db: sqlite3.Connection, event: Mapping[str, Any], at: datetime) -> datetime:
    """When an event's request was billed: what is given back the day after widens no other day."""
    bill = event.get("refers_to") or event["event_id"]
    row = db.execute("SELECT at_s FROM movements WHERE event_id = ?", (bill,)).fetchone()
    return at if row is None else datetime.fromtimestamp(row[0], UTC)


def _add_spending(db: sqlite3.Connection, api_key_id: str, day: str, usd: Decimal) -> None:
    where = (api_key_id, day)
    row = db.execute("SELECT usd FROM spending WHERE api_key_id = ? AND day = ?", where).fetchone()
    total = usd if row is None else _EXACT.add(Decimal(row[0]), usd)
    db.execute("INSERT OR REPLACE INTO spending VALUES (?, ?, ?)", (*where, _text(total)))


def _reserved(db: sqlite3.Connection, column: str, value: str) -> Decimal:
    return _sum(
        db.execute(f"SELECT usd FROM reservations WHERE {column} = ?", (value,))  # noqa: S608 - two names
    )


def _sum(rows: Iterable[tuple[str | Decimal]]) -> Decimal:
    total = Decimal(0)
    for (usd,) in rows:
        total = _EXACT.add(total, Decimal(usd))
    return total


def _text(usd: Decimal) -> str:
    return format(usd, "f")

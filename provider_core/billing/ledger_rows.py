"""What a row of the ledger holds, and what is asked of many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

from provider_core.quotas import SpendReset

_EXACT = Context(prec=60)
_NANO = 10**9

_TEXT = (
    "request_id",
    "api_key_id",
    "account_id",
    "user_id",
    "app_title",
    "app_referer",
    "session_id",
    "model",
    "endpoint",
    "status",
    "finish_reason",
    "native_finish_reason",
    "response_cache_source_id",
)
_NUMBERS = (
    "stream",
    "cancelled",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "image_count",
    "ttft_ms",
    "generation_ms",
    "latency_ms",
)
COLUMNS = ("generation_id", "finished_s", *_TEXT, *_NUMBERS, "cost_nano", "cost_atto")
"""Of a generation: the fields of its event by their names, the time in Unix seconds, the cost."""

_TYPES = {
    "generation_id": "TEXT PRIMARY KEY",
    "finished_s": "REAL NOT NULL",
    **dict.fromkeys(_TEXT, "TEXT"),
    **dict.fromkeys(_NUMBERS, "NUMERIC"),
    "cost_nano": "INTEGER NOT NULL",
    "cost_atto": "INTEGER NOT NULL",
}
VERSION = 1
"""Of the tables; a file of another one is left alone."""

SCHEMA = f"""
PRAGMA user_version = {VERSION};
CREATE TABLE IF NOT EXISTS generations (
    {", ".join(f"{name} {_TYPES[name]}" for name in COLUMNS)}
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_time ON generations (finished_s);
CREATE TABLE IF NOT EXISTS adjustments (
    event_id TEXT PRIMARY KEY, finished_s REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS days (
    api_key_id TEXT, account_id TEXT, day TEXT, model TEXT, requests INTEGER,
    prompt_tokens INTEGER, completion_tokens INTEGER, reasoning_tokens INTEGER,
    cost_nano INTEGER, cost_atto INTEGER,
    PRIMARY KEY (api_key_id, account_id, day, model)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_account ON days (account_id, day);
CREATE TABLE IF NOT EXISTS segments (name TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
"""
"""`days`: sums, for good; `account_id` is empty for none. `segments`: files of journals read."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose generations are asked for: those of the account, if the key has one."""

    api_key_id: str
    account_id: str | None = None

    @property
    def scope(self) -> tuple[str, str]:
        """The column that tells, and its value."""
        if self.account_id is not None:
            return "account_id", self.account_id
        return "api_key_id", self.api_key_id


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation.

    Attributes:
        fields: By the names of `COLUMNS`.
    """

    fields: Mapping[str, Any]  # text, numbers or `None`

    @property
    def cost(self) -> Decimal:
        """USD, exact, corrected by its adjustments."""
        return money(self.fields["cost_nano"], self.fields["cost_atto"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """USD, exact: in all, and since the day, the week and the month began in UTC."""

    total: Decimal = Decimal(0)
    day: Decimal = Decimal(0)
    week: Decimal = Decimal(0)
    month: Decimal = Decimal(0)

    def since(self, reset: SpendReset | None) -> Decimal:
        """What counts towards a limit that is reset so."""
        by_reset = {"daily": self.day, "weekly": self.week, "monthly": self.month}
        return self.total if reset is None else by_reset[reset]

    @staticmethod
    def begins(now_s: float) -> tuple[str, str, str]:
        """The days on which this day, this week (on Monday) and this month began."""
        day = datetime.fromtimestamp(now_s, UTC).date()
        week = day - timedelta(days=day.weekday())
        return day.isoformat(), week.isoformat(), day.replace(day=1).isoformat()


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What was used of a model on one day, `YYYY-MM-DD` in UTC."""

    day: str
    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost: Decimal


def row_of(event: Mapping[str, Any], finished_s: float) -> tuple[object, ...]:
    """The columns of a `usage.final`."""
    found = [event.get(name) for name in (*_TEXT, *_NUMBERS)]
    return (event["generation_id"], finished_s, *found, *split_money(event["cost"]))


def activity_of(row: Sequence[Any]) -> Activity:
    """Read a row of the question by day and model."""
    day, model, requests, prompt, completion, reasoning, nano, atto = row
    return Activity(
        day=day,
        model=model,
        requests=requests,
        prompt_tokens=prompt,
        completion_tokens=completion,
        reasoning_tokens=reasoning,
        cost=money(nano, atto),
    )


def sums_of(event: Mapping[str, Any]) -> tuple[object, ...]:
    """What a `usage.final` adds to the sums of its day."""
    names = ("prompt_tokens", "completion_tokens", "reasoning_tokens")
    return (*day_of(event), 1, *(event[name] for name in names), *split_money(event["cost"]))


def day_of(event: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Whose sums an event belongs to: key, account, day in UTC, model."""
    account_id = event["account_id"] or ""
    return event["api_key_id"], account_id, event["timestamp"][:10], event["model"]


def split_money(amount: str) -> tuple[int, int]:
    """A decimal string of at most 18 decimals as billionths, and billionths of those."""
    return divmod(int(Decimal(amount).scaleb(18, context=_EXACT)), _NANO)


def money(nano: int | None, atto: int | None) -> Decimal:
    """Undo `split_money`, of sums too; nothing is 0."""
    return Decimal((nano or 0) * _NANO + (atto or 0)).scaleb(-18, context=_EXACT)

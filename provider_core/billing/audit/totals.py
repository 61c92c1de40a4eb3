"""What was used and what it costs, summed exactly by day, key and model."""

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from decimal import Decimal
from typing import Literal

from provider_core.billing.audit.books import ALWAYS, Books, Period
from provider_core.billing.money import add_money, format_money

Grouping = Literal["day", "api_key_id", "account_id", "model"]
GROUPINGS: tuple[Grouping, ...] = ("day", "api_key_id", "model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """A sum over some generations; adjustments belong to the day of the bill they correct.

    Attributes:
        groups: Values of the grouping, in its order; empty where an event has none.
        requests: Generations, billed or not.
        billable: Those of them that are billed.
        prompt_tokens: Of billed generations, as are the other counts.
        cost: USD, exact, after adjustments.
        adjusted: USD, the part of it that adjustments made; 0 or below as a rule.
        list_cost: USD, what it would have been if all were billed.
    """

    groups: tuple[str, ...]
    requests: int
    billable: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost: str
    adjusted: str
    list_cost: str

    @property
    def numbers(self) -> tuple[int | str, ...]:
        """Everything but the groups, in the order of `COLUMNS`."""
        return astuple(self)[1:]


COLUMNS = tuple(field.name for field in fields(Total))[1:]

_COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")


def totals(
    books: Books, period: Period = ALWAYS, by: Sequence[Grouping] = GROUPINGS
) -> list[Total]:
    """Sum what was billed.

    Args:
        books: Every event counts once, however often it was found.
        period: Of the bills' timestamps.
        by: What tells two sums apart; nothing makes one sum of all.

    Returns:
        In order of the groups.
    """
    names = ", ".join(f"coalesce({name}, '')" for name in by) or "''"
    counts = ", ".join(
        f"coalesce(sum(json_extract(body, '$.{name}')) FILTER"
        " (WHERE json_extract(body, '$.billable')), 0)"
        for name in _COUNTS
    )
    rows = books.query(
        f"""
        WITH dated AS (
            SELECT e.kind, e.body, e.api_key_id, e.account_id, e.model,
                   coalesce(f.timestamp, e.timestamp) AS at,
                   substr(coalesce(f.timestamp, e.timestamp), 1, 10) AS day
            FROM bills e LEFT JOIN bills f ON f.event_id = e.refers_to
        )
        SELECT {names},
               count(*) FILTER (WHERE kind = 'usage.final'),
               count(*) FILTER (WHERE json_extract(body, '$.billable')),
               {counts},
               exact_sum(json_extract(body, '$.cost')),
               exact_sum(json_extract(body, '$.cost_delta')),
               exact_sum(json_extract(body, '$.list_cost'))
        FROM dated WHERE at >= ? AND (? = '' OR at < ?)
        {"GROUP BY " + ", ".join(map(str, range(1, len(by) + 1))) if by else ""}
        ORDER BY {", ".join(map(str, range(1, len(by) + 1))) or "1"}
        """,  # noqa: S608 - names of ours
        (period.since, period.until, period.until),
    )
    return [_total(row, len(by)) for row in rows]


def to_csv(by: Sequence[Grouping], sums: Sequence[Total]) -> str:
    """The sums as CSV with a heading, amounts as exact decimals."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*by, *COLUMNS))
    writer.writerows((*map(defused, one.groups), *one.numbers) for one in sums)
    return out.getvalue()


def defused(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _total(row: Sequence[object], num_groups: int) -> Total:
    width = max(num_groups, 1)
    numbers = dict(zip(COLUMNS, row[width:], strict=True))
    cost = add_money(Decimal(str(numbers["cost"])), Decimal(str(numbers["adjusted"])))
    return Total(
        groups=tuple(map(str, row[:num_groups])),
        **{**numbers, "cost": format_money(cost)},  # type: ignore[arg-type]  # SQLite's own types
    )

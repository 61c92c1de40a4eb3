"""Comparing our bills with what a marketplace recorded of the same generations.

OpenRouter's record of a generation names ours as `upstream_id`; fields are those of its
`GET /generation`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any, Literal

from provider_core.billing.audit.books import Books
from provider_core.billing.money import add_money
from provider_core.errors import ConfigurationError

Record = Mapping[str, Any]  # JSON of somebody else's
_SHARE = Decimal("1e-9")  # a price that was a binary float somewhere
_COUNTS = {
    "native_tokens_prompt": "prompt_tokens",
    "native_tokens_completion": "completion_tokens",
    "native_tokens_reasoning": "reasoning_tokens",
    "native_tokens_cached": "cached_tokens",
    "cancelled": "cancelled",
    "streamed": "stream",
}


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """One thing on which two records of a generation differ.

    Attributes:
        kind: `unknown` to us, or a field of ours.
        generation_id: Ours, which is theirs as `upstream_id`.
        detail: Both values.
    """

    kind: Literal["unknown", "differs"]
    generation_id: str
    detail: str


def read_records(path: Path) -> list[Record]:
    """Read records: a JSON array, an object with them as `data`, or one object a line.

    Raises:
        OSError: The file cannot be read.
        ConfigurationError: It holds no such records.
    """
    text = path.read_text(encoding="utf-8")
    try:
        try:
            whole = loads(text, parse_float=Decimal)
        except JSONDecodeError:
            whole = [loads(line, parse_float=Decimal) for line in text.splitlines() if line.strip()]
    except JSONDecodeError as error:
        raise ConfigurationError(f"{path} holds no JSON: {error}") from error
    records = _unwrapped(whole)
    if not all(isinstance(record, dict) for record in records):
        raise ConfigurationError(f"{path} holds no records of generations")
    return records


def compare(books: Books, records: Iterable[Record]) -> list[Difference]:
    """Every difference between their records and our bills, adjustments included."""
    found: list[Difference] = []
    for record in records:
        generation_id = str(record.get("upstream_id"))
        final = books.find(f"{generation_id}:final")
        if final is None:
            found.append(Difference("unknown", generation_id, f"theirs is {record.get('id')}"))
            continue
        found += (
            Difference("differs", generation_id, detail)
            for detail in _differences(record, final, _cost(books, final))
        )
    return sorted(found)


def _unwrapped(whole: object) -> list[Any]:
    if isinstance(whole, dict):
        data = whole.get("data", [whole])
        return data if isinstance(data, list) else [data]
    if isinstance(whole, list):
        return [_unwrapped(item)[0] if isinstance(item, dict) else item for item in whole]
    return [whole]


def _cost(books: Books, final: Record) -> Decimal:
    cost = Decimal(final["cost"])
    for (delta,) in books.query(
        "SELECT json_extract(body, '$.cost_delta') FROM bills WHERE refers_to = ?",
        (final["event_id"],),
    ):
        cost = add_money(cost, Decimal(delta))
    return cost


def _differences(record: Record, final: Record, cost: Decimal) -> Iterator[str]:
    for theirs, ours in _COUNTS.items():
        told = record.get(theirs)
        if told is not None and told != final[ours]:
            yield f"{ours}: we say {final[ours]}, they say {told}"
    told = record.get("total_cost")
    if told is not None:
        try:
            amount = Decimal(str(told))
            differs = abs(amount - cost) > max(abs(cost), abs(amount)) * _SHARE
        except InvalidOperation:
            amount, differs = Decimal("NaN"), True
        if differs:
            yield f"cost: we say {cost:f}, they say {amount:f}"

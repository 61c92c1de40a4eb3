"""What must hold of one usage line by itself: its schema, its hash, its sums and its cost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from provider_core.billing.events import MAX_LINE_BYTES, content_sha256
from provider_core.billing.money import cost_of, format_money
from provider_core.billing.schema import integer_names, validator
from provider_core.prices import Prices
from provider_core.types import Usage

FaultKind = Literal["invalid", "altered", "cost_mismatch"]
Event = Mapping[str, Any]  # a parsed line; any JSON until it is checked


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule that a line breaks.

    Attributes:
        kind: `invalid` in form or sums, `altered` since it was written, or charged wrongly.
        detail: Which rule, and what the line says.
    """

    kind: FaultKind
    detail: str


def faults(line: bytes, event: Event) -> list[Fault]:
    """Every rule that a usage line breaks.

    Args:
        line: As it was found.
        event: The same, parsed: a final, an adjustment or a heartbeat.
    """
    found = [*_form(line, event)]
    if "content_sha256" in event and content_sha256(event) != event["content_sha256"]:
        found.append(Fault("altered", "content_sha256 is of another content"))
    if not any(fault.kind == "invalid" for fault in found) and event["event"] == "usage.final":
        found += _sums(event)
        found += _cost(event)
    return found


def prices_of(event: Event) -> Prices:
    """The prices that a valid final quotes."""
    amounts: dict[str, Any] = {name: Decimal(text) for name, text in event["prices"].items()}
    return Prices(**amounts)


def usage_of(event: Event) -> Usage:
    """The counts that a valid final bills."""
    return Usage(
        prompt_tokens=event["prompt_tokens"],
        cached_tokens=event["cached_tokens"],
        completion_tokens=event["completion_tokens"],
        reasoning_tokens=event["reasoning_tokens"],
        generated_tokens=event["generated_tokens"],
    )


def _form(line: bytes, event: Event) -> Iterator[Fault]:
    if len(line.rstrip(b"\r\n")) >= MAX_LINE_BYTES:
        yield Fault("invalid", f"the line has over {MAX_LINE_BYTES} bytes")
    if not line.isascii():
        yield Fault("invalid", "the line is not ASCII")
    for error in validator().iter_errors(event):
        where = ".".join(map(str, error.instance_path))
        yield Fault("invalid", f"{where}: {error.message}" if where else error.message)
    for name in sorted(integer_names() & event.keys()):
        if isinstance(event[name], float):  # JSON Schema takes 3.0 for an integer, too
            yield Fault("invalid", f"{name}: {event[name]} is not written as an integer")


def _sums(event: Event) -> Iterator[Fault]:
    usage = usage_of(event)
    rules = {
        "total_tokens is not the sum": event["total_tokens"] == usage.total_tokens,
        "cached_tokens and cache_write_tokens exceed prompt_tokens": (
            usage.cached_tokens + event["cache_write_tokens"] <= usage.prompt_tokens
        ),
        "reasoning_tokens exceed completion_tokens": (
            usage.reasoning_tokens <= usage.completion_tokens
        ),
        "completion_tokens exceed generated_tokens": (
            usage.completion_tokens <= usage.generated_tokens
        ),
        "event_id is of another generation": (
            event["event_id"] == f"{event['generation_id']}:final"
        ),
        "cancelled does not fit status": event["cancelled"] == (event["status"] == "cancelled"),
    }
    yield from (Fault("invalid", rule) for rule, holds in rules.items() if not holds)


def _cost(event: Event) -> Iterator[Fault]:
    exact = cost_of(
        prices_of(event),
        usage_of(event),
        cache_write_tokens=event["cache_write_tokens"],
        image_count=event["image_count"],
    )
    for name, expected in (
        ("list_cost", format_money(exact)),
        ("cost", format_money(exact) if event["billable"] else "0"),
    ):
        if event[name] != expected:
            yield Fault("cost_mismatch", f"{name} is {event[name]}, its prices make {expected}")

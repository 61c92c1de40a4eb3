"""Usage events in the forms that billing services take, one JSON object a line.

Pure functions of one event. Each target drops a second delivery by an identifier that we derive
from `event_id`, so sending again is always safe.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Context, Decimal
from typing import Any
from urllib.parse import quote

from provider_core.billing.audit.books import Books, Period
from provider_core.billing.audit.skus import charges
from provider_core.billing.money import format_money

Event = Mapping[str, Any]  # a valid usage line
Exported = dict[str, Any]  # JSON of the target's own schema

_DATA = (
    "generation_id",
    "request_id",
    "api_key_id",
    "user_id",
    "endpoint",
    "operation",
    "model",
    "status",
    "finish_reason",
    "prompt_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "total_tokens",
    "image_count",
    "billable",
    "billing_rule",
    "currency",
    "price_version",
    "price_tier",
    "cost",
    "list_cost",
    "refers_to",
    "cost_delta",
    "reason",
)
_TYPES = {
    "usage.final": "llm.usage.final.v1",
    "usage.adjustment": "llm.usage.adjustment.v1",
}
_AMOUNTS = {"cost", "cost_delta", "list_cost"}
_CODE = "llm_usage"
_CENTS = Context(prec=50)


def export_events(
    target: str, books: Books, period: Period, *, provider: str
) -> Iterator[Exported]:
    """Every event of a period as one of the targets that take single events.

    Args:
        target: `cloudevents`, `openmeter` (which takes CloudEvents), `lago` or `stripe`.
        books: Where they are.
        period: Of their timestamps.
        provider: The provider's short name, the `source` of CloudEvents.
    """
    for event in books.events(period):
        match target:
            case "lago":
                yield to_lago(event)
            case "stripe":
                yield from to_stripe(event, books.find(event.get("refers_to", "")))
            case _:
                yield to_cloud_event(event, provider)


def customer_of(event: Event) -> str:
    """Who pays: the account, or the key where keys have none."""
    customer: str = event["account_id"] or event["api_key_id"]
    return customer


def unix_s(timestamp: str) -> int:
    """Whole seconds of a line's timestamp."""
    return int(datetime.fromisoformat(timestamp).timestamp())


def to_cloud_event(event: Event, provider: str) -> Exported:
    """CloudEvents 1.0, as OpenMeter takes them; a consumer knows an event by `source` and `id`."""
    return {
        "specversion": "1.0",
        "id": event["event_id"],
        "source": f"//{provider}/{quote(event.get('region', ''))}".rstrip("/"),
        "type": _TYPES[event["event"]],
        "subject": customer_of(event),
        "time": event["timestamp"],
        "datacontenttype": "application/json",
        "data": {name: event[name] for name in _DATA if name in event},
    }


def to_lago(event: Event) -> Exported:
    """The body of Lago's `POST /api/v1/events`; amounts are cents, exact.

    Its properties are strings and numbers, so that truth values are written as words.
    """
    amount = Decimal(event["cost" if event["event"] == "usage.final" else "cost_delta"])
    found = {name: event.get(name) for name in _DATA if name not in _AMOUNTS}
    properties = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in found.items()
        if value is not None
    }
    return {
        "event": {
            "transaction_id": event["event_id"],
            "external_subscription_id": customer_of(event),
            "code": _CODE,
            "timestamp": unix_s(event["timestamp"]),
            "precise_total_amount_cents": format_money(amount.scaleb(2, _CENTS)),
            "properties": properties,
        }
    }


def to_stripe(event: Event, final: Event | None = None) -> Iterator[Exported]:
    """Stripe's meter events, one for each unit of a billed generation.

    An adjustment of ours takes a whole bill back, so it cancels the meter events of that bill.

    Args:
        event: A final or an adjustment.
        final: Of an adjustment, what it refers to.
    """
    if event["event"] == "usage.final":
        if event["billable"]:
            for charge in charges(event):
                yield {
                    "event_name": f"{_CODE}_{charge.sku}",
                    "identifier": _identifier(event, charge.sku),
                    "timestamp": unix_s(event["timestamp"]),
                    "payload": {
                        "stripe_customer_id": customer_of(event),
                        "value": str(charge.quantity),
                        "model": event["model"],
                    },
                }
    elif final is not None and Decimal(event["cost_delta"]).copy_negate() == Decimal(final["cost"]):
        for charge in charges(final):
            yield {
                "event_name": f"{_CODE}_{charge.sku}",
                "type": "cancel",
                "cancel": {"identifier": _identifier(final, charge.sku)},
            }


def _identifier(event: Event, sku: str) -> str:
    return f"{event['event_id']}:{sku}"

"""Usage as a FOCUS 1.2 data set, the common form of cloud bills: one row for each unit of a bill.

Columns are those of focus.finops.org; ours beyond them begin with `x_`, as it asks. The costs of a
bill's rows add up to its cost exactly. Times are whole seconds, as its format has no others: a
charge period ends with the second after the last.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson

from provider_core.billing.audit.books import Books, Period
from provider_core.billing.audit.exports import Event, customer_of, unix_s
from provider_core.billing.audit.skus import charges
from provider_core.billing.audit.totals import defused
from provider_core.billing.money import format_money

COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodStart",
    "BillingPeriodEnd",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "x_EventId",
)
Row = dict[str, str]


def to_csv(books: Books, period: Period, *, provider: str) -> str:
    """The data set of a period, with its heading."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for event in books.events(period):
        writer.writerows(rows(event, books.find(event.get("refers_to", "")), provider=provider))
    return out.getvalue()


def rows(event: Event, final: Event | None = None, *, provider: str) -> Iterator[Row]:
    """The rows of one event.

    Args:
        event: A final or an adjustment.
        final: Of an adjustment, what it refers to.
        provider: Its name.
    """
    shared = _shared(event, provider)
    if event["event"] == "usage.adjustment":
        yield _adjustment(event, final, shared)
        return
    details = orjson.dumps({"x_PriceVersion": event["price_version"]}).decode()
    for charge in charges(event):
        cost = format_money(charge.cost)
        billed = cost if event["billable"] else "0"
        price, quantity = format_money(charge.unit_price), str(charge.quantity)
        yield shared | {
            "BilledCost": billed,
            "ChargeCategory": "Usage",
            "ChargeDescription": f"{charge.meter} of {event['model']}",
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodStart": _second(event["received_at"]),
            "ConsumedQuantity": quantity,
            "ConsumedUnit": charge.unit,
            "ContractedCost": cost,
            "ContractedUnitPrice": price,
            "EffectiveCost": billed,
            "ListCost": cost,
            "ListUnitPrice": price,
            "PricingCategory": "Standard",
            "PricingQuantity": quantity,
            "PricingUnit": charge.unit,
            "RegionId": event["region"],
            "RegionName": event["region"],
            "SkuId": event["model"],
            "SkuMeter": charge.meter,
            "SkuPriceDetails": details,
            "SkuPriceId": f"{event['model']}/{charge.sku}/{event['price_version']}/{price}",
        }


def _adjustment(event: Event, final: Event | None, shared: Row) -> Row:
    """A correction, of an earlier period's bill if that is what it corrects."""
    month = event["timestamp"][:7]
    is_late = final is not None and final["timestamp"][:7] < month
    delta = event["cost_delta"]
    return shared | {
        "BilledCost": delta,
        "ChargeCategory": "Adjustment",
        "ChargeClass": "Correction" if is_late else "",
        "ChargeDescription": f"{event['reason']} of {event['refers_to']}",
        "ChargeFrequency": "One-Time",
        "ChargePeriodStart": _second(event["timestamp"]),
        "ContractedCost": delta,
        "EffectiveCost": delta,
        "ListCost": delta,
    }


def _shared(event: Event, provider: str) -> Row:
    start, end = _month(event["timestamp"])
    texts: dict[str, Any] = {
        "BillingAccountId": customer_of(event),
        "BillingAccountName": customer_of(event),
        "InvoiceIssuerName": provider,
        "ProviderName": provider,
        "PublisherName": provider,
        "ResourceName": event["model"],
        "SubAccountId": event["account_id"] or "",
        "SubAccountName": event["account_id"] or "",
    }
    return {
        **{name: defused(text) for name, text in texts.items()},
        "BillingCurrency": event["currency"],
        "BillingPeriodStart": start,
        "BillingPeriodEnd": end,
        "ChargePeriodEnd": _second(event["timestamp"], 1),
        "ResourceId": event["generation_id"],
        "ResourceType": "Generation",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "LLM Inference",
        "ServiceSubcategory": "Generative AI",
        "x_EventId": event["event_id"],
    }


def _second(timestamp: str, later_s: int = 0) -> str:
    moment = datetime.fromtimestamp(unix_s(timestamp) + later_s, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _month(timestamp: str) -> Iterable[str]:
    year, month = int(timestamp[:4]), int(timestamp[5:7])
    following = (year + 1, 1) if month == 12 else (year, month + 1)
    return [f"{y:04d}-{m:02d}-01T00:00:00Z" for y, m in ((year, month), following)]

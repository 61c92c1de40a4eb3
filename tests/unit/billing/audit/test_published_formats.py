"""Exports against what each service publishes of its own format.

CloudEvents is judged by its own library, AWS Marketplace by botocore's model of the service. Of the
others the rules stand here, each with its source.
"""

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema_rs
import orjson
import pytest
from botocore.validate import ParamValidator
from cloudevents.core.formats.json import JSONFormat

from provider_core.billing.audit import aws_marketplace, exports, focus
from provider_core.billing.audit.books import ALWAYS, Books
from provider_core.billing.audit.sources import read_source
from provider_core.billing.events import encode_event
from provider_core.json_lines import encode_line
from tests.unit.billing.audit.test_exports import LINES

OPENMETER = {  # "Event" of api/openapi.yaml in openmeterio/openmeter
    "type": "object",
    "required": ["id", "source", "specversion", "type", "subject"],
    "properties": {
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "minLength": 1, "format": "uri-reference"},
        "specversion": {"const": "1.0"},
        "type": {"type": "string", "minLength": 1},
        "datacontenttype": {"const": "application/json"},
        "subject": {"type": "string", "minLength": 1},
        "time": {"type": "string", "format": "date-time"},
        "data": {"type": "object"},
    },
    "additionalProperties": False,
}
LAGO = {  # "EventInput" of getlago/lago-openapi; the amount is a string, or it is not read
    "type": "object",
    "required": ["event"],
    "additionalProperties": False,
    "properties": {
        "event": {
            "type": "object",
            "required": ["transaction_id", "external_subscription_id", "code"],
            "additionalProperties": False,
            "properties": {
                "transaction_id": {"type": "string", "minLength": 1},
                "external_subscription_id": {"type": "string", "minLength": 1},
                "code": {"type": "string", "minLength": 1},
                "timestamp": {"type": ["integer", "string"]},
                "precise_total_amount_cents": {
                    "type": "string",
                    "pattern": r"^-?[0-9]+(\.[0-9]{1,15})?$",  # Decimal(76, 15) in its store
                },
                "properties": {
                    "type": "object",
                    "additionalProperties": {"type": ["string", "integer", "number"]},
                },
            },
        }
    },
}
_NAME = {"type": "string", "minLength": 1, "maxLength": 100}
STRIPE_EVENT = {  # POST /v1/billing/meter_events of stripe/openapi
    "type": "object",
    "required": ["event_name", "payload"],
    "additionalProperties": False,
    "properties": {
        "event_name": _NAME,
        "identifier": _NAME,
        "timestamp": {"type": "integer"},
        "payload": {
            "type": "object",
            "required": ["stripe_customer_id", "value"],
            "properties": {"value": {"type": "string", "pattern": "^[0-9]+$"}},
            "additionalProperties": {"type": "string"},
        },
    },
}
STRIPE_ADJUSTMENT = {  # POST /v1/billing/meter_event_adjustments
    "type": "object",
    "required": ["event_name", "type", "cancel"],
    "additionalProperties": False,
    "properties": {
        "event_name": _NAME,
        "type": {"const": "cancel"},
        "cancel": {
            "type": "object",
            "required": ["identifier"],
            "additionalProperties": False,
            "properties": {"identifier": _NAME},
        },
    },
}

AGREEMENTS = {
    customer: aws_marketplace.Agreement(
        "123456789012", f"arn:aws:license-manager::294406891311:license:l-{number:032x}"
    )
    for number, customer in enumerate(("key_9f31c0", "acme", "=Zoë & sons, Ltd."))
}

# FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec v1.2, specification/columns: feature level, nulls.
FOCUS_NOT_NULL = {
    *("BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodEnd"),
    *("BillingPeriodStart", "ChargeCategory", "ChargePeriodEnd", "ChargePeriodStart"),
    *("ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost", "ProviderName"),
    *("PublisherName", "ServiceCategory", "ServiceName", "ServiceSubcategory", "ChargeFrequency"),
}
FOCUS_NULLABLE = {
    *("BillingAccountName", "ChargeClass", "ChargeDescription", "PricingQuantity", "PricingUnit"),
}
FOCUS_OF_USAGE = {  # not null where ChargeCategory is Usage
    *("ContractedUnitPrice", "ListUnitPrice", "PricingCategory", "PricingQuantity", "PricingUnit"),
    *("SkuId", "SkuMeter", "SkuPriceId", "ConsumedQuantity", "ConsumedUnit"),
}
FOCUS_TOGETHER = (  # null together, or not
    ("RegionId", "RegionName"),
    ("ResourceId", "ResourceType"),
    ("SubAccountId", "SubAccountName"),
    ("SkuPriceId", "SkuPriceDetails"),
    ("ConsumedQuantity", "ConsumedUnit"),
    ("PricingQuantity", "PricingUnit"),
)
FOCUS_VALUES = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {"", "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {"", "Standard", "Dynamic", "Committed", "Other"},
    "ServiceCategory": {"AI and Machine Learning"},
    "ServiceSubcategory": {"Generative AI"},
    "BillingCurrency": {"USD"},
}
FOCUS_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
FOCUS_NUMBER = re.compile(r"-?\d+(\.\d+)?")
FOCUS_NAME = re.compile(r"([A-Z][a-z]*)+|x_\w+")


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    """The golden lines, and one of a region and a customer that no format was made for."""
    first, *rest = LINES.read_bytes().splitlines(keepends=True)
    strange = orjson.loads(first) | {
        "event_id": f"gen-{'Z' * 26}:final",
        "generation_id": f"gen-{'Z' * 26}",
        "region": "us east/2 %?#",
        "account_id": "=Zoë & sons, Ltd.",
    }
    path = tmp_path / "usage.log"
    path.write_bytes(b"".join([first, *rest, encode_event(strange)]))
    with Books() as opened:
        opened.read("log", read_source(path))
        yield opened


def exported(books: Books, target: str) -> list[dict[str, Any]]:
    """What a service would get, as JSON reads it."""
    events = exports.export_events(target, books, ALWAYS, provider="acme-inference")
    return [orjson.loads(encode_line(event)) for event in events]


def check(schema: dict[str, Any], value: object) -> None:
    """Judge by a schema, formats included."""
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(value)


def test_cloud_events_are_read_by_their_own_library(books: Books) -> None:
    """Every attribute is there, of its type, and the data comes back as it was."""
    events = exported(books, "cloudevents")
    assert len({(event["source"], event["id"]) for event in events}) == len(events) == 5
    for event in events:
        read = JSONFormat().read(None, orjson.dumps(event))
        assert (read.get_id(), read.get_source()) == (event["id"], event["source"])
        assert (read.get_type(), read.get_subject()) == (event["type"], event["subject"])
        assert read.get_time() == datetime.fromisoformat(event["time"])
        assert read.get_specversion() == "1.0"
        assert read.get_data() == event["data"]


def test_openmeter_takes_the_events(books: Books) -> None:
    """A region with a space in it makes no source that is no reference."""
    for event in exported(books, "openmeter"):
        check(OPENMETER, event)


def test_lago_takes_the_events(books: Books) -> None:
    """Properties are words and numbers, the amount is exact."""
    events = exported(books, "lago")
    for event in events:
        check(LAGO, event)
    cents = [Decimal(event["event"]["precise_total_amount_cents"]) for event in events]
    assert sum(cents) == Decimal("0.00684")  # two bills of 0.0000342; a third is taken back


def test_stripe_takes_meter_events_and_cancellations(books: Books) -> None:
    """Each identifier is sent once, and cancelled under the name that it was sent under."""
    events = exported(books, "stripe")
    for event in events:
        check(STRIPE_ADJUSTMENT if "cancel" in event else STRIPE_EVENT, event)
    names = {event["identifier"]: event["event_name"] for event in events if "payload" in event}
    assert len(names) == sum("payload" in event for event in events)
    cancelled = [event for event in events if "cancel" in event]
    assert cancelled
    assert all(names[event["cancel"]["identifier"]] == event["event_name"] for event in cancelled)


@pytest.mark.parametrize("buyers", [{"agreements": AGREEMENTS}, {"product_code": "prod-1"}])
def test_aws_marketplace_takes_the_calls(books: Books, buyers: dict[str, Any]) -> None:
    """Botocore's own model of `BatchMeterUsage`: types, lengths, ranges and patterns."""
    model = botocore.session.get_session().get_service_model("meteringmarketplace")
    shape = model.operation_model("BatchMeterUsage").input_shape
    batches = list(aws_marketplace.batches(books, ALWAYS, **buyers))
    assert batches
    assert all(("ProductCode" in batch) == ("product_code" in buyers) for batch in batches)
    for batch in batches:
        assert ParamValidator().validate(batch, shape).generate_report() == ""
        members = shape.members["UsageRecords"].member.members
        assert len(batch["UsageRecords"]) <= 25
        for record in batch["UsageRecords"]:
            for name, value in record.items():
                pattern = members[name].metadata.get("pattern")
                assert pattern is None or re.fullmatch(pattern, value)
            assert ("LicenseArn" in record) == ("agreements" in buyers)
            hour = datetime.fromisoformat(record["Timestamp"])
            assert (hour.minute, hour.second, hour.tzinfo) == (0, 0, UTC)


def focus_rows(books: Books) -> list[dict[str, str]]:
    """The data set as its readers see it."""
    return list(csv.DictReader(io.StringIO(focus.to_csv(books, ALWAYS, provider="Acme"))))


def test_focus_has_the_columns_that_are_mandatory(books: Books) -> None:
    """And others that are of 1.2 or begin with `x_`; null where it may be, and only there."""
    rows = focus_rows(books)
    assert rows[0].keys() >= FOCUS_NOT_NULL | FOCUS_NULLABLE
    assert all(FOCUS_NAME.fullmatch(name) for name in rows[0])
    for row in rows:
        assert all(row[name] for name in FOCUS_NOT_NULL)
        assert all(row[name] in values for name, values in FOCUS_VALUES.items())
        is_usage = row["ChargeCategory"] == "Usage"
        assert {bool(row[name]) for name in FOCUS_OF_USAGE} == {is_usage}
        for pair in FOCUS_TOGETHER:
            assert len({bool(row[name]) for name in pair}) == 1
        assert row["ResourceName"] != row["ResourceId"]


def test_focus_values_have_their_formats(books: Books) -> None:
    """Times are whole seconds in UTC, numbers are plain decimals, prices are not negative."""
    for row in focus_rows(books):
        for name, value in row.items():
            if name.endswith(("PeriodStart", "PeriodEnd")):
                assert FOCUS_TIME.fullmatch(value)
            elif name.endswith(("Cost", "Quantity", "UnitPrice")) and value:
                assert FOCUS_NUMBER.fullmatch(value)
                assert not (name.endswith("UnitPrice") and value.startswith("-"))
        assert row["ChargePeriodStart"] < row["ChargePeriodEnd"]
        assert row["BillingPeriodStart"] < row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]
        details = row["SkuPriceDetails"]
        assert not details or all(key.startswith("x_") for key in orjson.loads(details))


def test_focus_costs_are_products_of_their_quantities(books: Books) -> None:
    """Unless nothing has a price: then every cost is the billed one."""
    for row in focus_rows(books):
        for kind in ("List", "Contracted"):
            cost, price = Decimal(row[f"{kind}Cost"]), row[f"{kind}UnitPrice"]
            billed, quantity = Decimal(row["BilledCost"]), row["PricingQuantity"]
            assert cost == (Decimal(price) * Decimal(quantity) if price else billed)
        assert row["EffectiveCost"] == row["BilledCost"]


def test_focus_prices_are_told_apart(books: Books) -> None:
    """One id of a price has one price and one model."""
    known: dict[str, tuple[str, str]] = {}
    for row in focus_rows(books):
        if row["SkuPriceId"]:
            facts = (row["ListUnitPrice"], row["SkuId"])
            assert known.setdefault(row["SkuPriceId"], facts) == facts

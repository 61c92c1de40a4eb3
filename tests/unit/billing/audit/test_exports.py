"""Exports against golden files: what a billing service gets of the golden usage lines.

`tests/data/usage_lines` holds the lines: two bills, the second taken back, and a failure.
"""

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from provider_core.billing.audit import aws_marketplace, exports, focus
from provider_core.billing.audit.books import ALWAYS, Books, Period
from provider_core.billing.audit.invoice import InvoiceLine, invoice
from provider_core.billing.audit.skus import charges
from provider_core.billing.audit.sources import read_source
from provider_core.billing.audit.totals import totals
from provider_core.billing.events import encode_event
from provider_core.errors import ConfigurationError
from provider_core.json_lines import encode_line
from tests.unit.access.test_keys import TestClock

DATA = Path(__file__).parents[3] / "data"
LINES = DATA / "usage_lines/1.0.jsonl"
KEY = "key_9f31c0"
NOVEMBER = Period("2026-11-01", "2026-12-01")
DECEMBER = Period("2026-12-01", "2027-01-01")


@pytest.fixture
def books() -> Iterator[Books]:
    """The golden lines."""
    with Books() as opened:
        opened.read("log", read_source(LINES))
        yield opened


def golden(name: str) -> str:
    """What an export was when somebody last looked at it."""
    return (DATA / "usage_exports" / name).read_text()


def as_lines(objects: Iterator[dict[str, Any]]) -> str:
    """As the command writes them."""
    return b"".join(map(encode_line, objects)).decode()


@pytest.mark.parametrize("target", ["cloudevents", "lago", "stripe"])
def test_events_are_exported_as_they_were(books: Books, target: str) -> None:
    """Field by field; a change here is a change for whoever bills by it."""
    exported = as_lines(exports.export_events(target, books, ALWAYS, provider="acme-inference"))

    assert exported == golden(f"{target}.jsonl")


def test_focus_rows_are_as_they_were(books: Books) -> None:
    """Column by column."""
    assert focus.to_csv(books, ALWAYS, provider="Acme") == golden("focus.csv")


def test_aws_marketplace_records_are_as_they_were(books: Books) -> None:
    """Hourly sums, without the bill that was taken back."""
    batches = aws_marketplace.batches(books, ALWAYS, product_code="prod-1")

    assert as_lines(batches) == golden("aws-marketplace.jsonl")


def test_openmeter_takes_cloud_events(books: Books) -> None:
    """Two names of one form."""
    forms = [
        list(exports.export_events(target, books, ALWAYS, provider="acme"))
        for target in ("cloudevents", "openmeter")
    ]
    assert forms[0] == forms[1]


def test_charges_of_a_bill_add_up_to_its_list_cost(books: Books) -> None:
    """Exactly, and so do the rows of FOCUS to its cost."""
    for event in books.events(kind="usage.final"):
        assert sum(charge.cost for charge in charges(event)) == Decimal(event["list_cost"])
        rows = list(focus.rows(event, provider="Acme"))
        assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal(event["cost"])


def test_focus_sums_to_what_is_owed(books: Books) -> None:
    """Bills and adjustments together."""
    rows = csv.DictReader(io.StringIO(focus.to_csv(books, ALWAYS, provider="Acme")))
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal("0.0000342")


def test_identifiers_are_short_and_tell_units_apart(books: Books) -> None:
    """Stripe takes a hundred characters, and an identifier once."""
    sent = [
        event["identifier"]
        for event in exports.export_events("stripe", books, ALWAYS, provider="acme")
        if "identifier" in event
    ]
    assert len(set(sent)) == len(sent)
    assert max(map(len, sent)) <= 100


def test_an_adjustment_cancels_the_meter_events_of_its_bill(books: Books) -> None:
    """All of them, and nobody else's."""
    events = list(exports.export_events("stripe", books, ALWAYS, provider="acme"))
    cancelled = {event["cancel"]["identifier"] for event in events if "cancel" in event}
    sent = {event["identifier"] for event in events if "identifier" in event}
    assert cancelled == {name for name in sent if "C5E:final" in name}


def test_aws_marketplace_calls_are_small(tmp_path: Path) -> None:
    """At most 25 records each, an hour's sum of a customer in one of them."""
    final = orjson.loads(LINES.read_bytes().splitlines()[0])
    path = tmp_path / "usage.log"
    path.write_bytes(
        b"".join(
            encode_event(
                final
                | {
                    "event_id": f"gen-{number:026d}:final",
                    "generation_id": f"gen-{number:026d}",
                    "account_id": f"customer-{number % 20}",
                }
            )
            for number in range(40)
        )
    )
    with Books() as books:
        books.read("log", read_source(path))
        batches = list(aws_marketplace.batches(books, ALWAYS, product_code="p"))
    records = [record for batch in batches for record in batch["UsageRecords"]]
    assert [len(batch["UsageRecords"]) for batch in batches] == [25, 25, 10]
    assert {r["Quantity"] for r in records if r["Dimension"] == "completion_tokens"} == {240}


@pytest.mark.parametrize(
    "period", [Period(until="2026-11-20T10:15:00"), Period(since="2026-11-20T10:00:01")]
)
def test_aws_marketplace_gets_no_part_of_an_hour(books: Books, period: Period) -> None:
    """What is sent of an hour is all that AWS takes of it."""
    with pytest.raises(ConfigurationError, match="within an hour"):
        list(aws_marketplace.batches(books, period, product_code="p"))


def test_aws_marketplace_gets_no_hour_that_is_not_over(books: Books) -> None:
    """To the second."""
    (batch,) = aws_marketplace.batches(books, ALWAYS, product_code="p")
    over = [datetime.fromisoformat(r["Timestamp"]).timestamp() for r in batch["UsageRecords"]]

    def hours_at(now_s: float) -> set[str]:
        clock = TestClock(now_s)
        found = aws_marketplace.batches(books, ALWAYS, clock=clock, product_code="p")
        return {record["Timestamp"] for batch in found for record in batch["UsageRecords"]}

    end_s = max(over) + 3600
    assert hours_at(end_s) - hours_at(end_s - 1) == {
        max(r["Timestamp"] for r in batch["UsageRecords"])
    }


def test_a_line_that_was_altered_bills_nothing(tmp_path: Path) -> None:
    """By no export, no invoice and no sum: nobody knows what it said."""
    final, other, *_ = LINES.read_bytes().splitlines(keepends=True)
    path = tmp_path / "usage.log"
    altered = other.replace(b'"model":"acme/', b'"model":"/')
    for line, is_billed in ((other, True), (altered, False)):
        path.write_bytes(final + line)
        with Books() as books:
            books.read("log", read_source(path))
            events = exports.export_events("cloudevents", books, ALWAYS, provider="acme")
            assert len(list(events)) == 1 + is_billed
            assert bool(invoice(books, "acme", NOVEMBER).lines) is is_billed
            (total,) = totals(books, by=())
            assert total.requests == 1 + is_billed
            assert (books.find(orjson.loads(line)["event_id"]) is not None) is is_billed


def test_an_hour_of_too_much_is_refused(tmp_path: Path) -> None:
    """A record holds 31 bits; nothing is cut silently."""
    final = orjson.loads(LINES.read_bytes().splitlines()[0])
    huge = {"completion_tokens": 2**31, "generated_tokens": 2**31, "total_tokens": 2**31 + 812}
    path = tmp_path / "usage.log"
    path.write_bytes(encode_event(final | huge))
    with Books() as books:
        books.read("log", read_source(path))
        with pytest.raises(ConfigurationError, match="completion_tokens"):
            list(aws_marketplace.batches(books, ALWAYS, product_code="p"))


def test_aws_marketplace_names_buyers_by_their_agreements(books: Books, tmp_path: Path) -> None:
    """From a file; whoever is not in it is not left out in silence."""
    path = tmp_path / "agreements.toml"
    path.write_text(f"[{KEY}]\naws_account_id = '123456789012'\nlicense_arn = 'arn:aws:x'\n")
    agreements = aws_marketplace.read_agreements(path)
    (batch,) = aws_marketplace.batches(books, ALWAYS, agreements=agreements)
    assert batch.keys() == {"UsageRecords"}
    buyers = {(r["CustomerAWSAccountId"], r["LicenseArn"]) for r in batch["UsageRecords"]}
    assert buyers == {("123456789012", "arn:aws:x")}
    with pytest.raises(ConfigurationError, match=f"{KEY} has no agreement"):
        list(aws_marketplace.batches(books, ALWAYS, agreements={}))


@pytest.mark.parametrize("text", ["[acme", "acme = 1", "[acme]\naws_account_id = '1'"])
def test_agreements_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    """With the file and, if it is one, the customer."""
    path = tmp_path / "agreements.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"agreements\.toml"):
        aws_marketplace.read_agreements(path)


def test_an_invoice_lists_units_and_prices(books: Books) -> None:
    """November has the first bill and not the second one's customer."""
    made = invoice(books, KEY, NOVEMBER)
    assert made.lines[0] == InvoiceLine(
        "acme/llama-3.1-8b",
        "Cached Input Tokens",
        Decimal("0.000000025"),
        1280,
        Decimal("0.000032"),
    )
    assert made.exact == sum(line.amount for line in made.lines)
    assert f"{made.exact:f}" == "0.001168800"
    assert invoice(books, "acme", NOVEMBER).exact == Decimal("0.0011346")


def test_a_correction_is_on_the_invoice_of_its_own_month(books: Books) -> None:
    """November's invoice may have been sent."""
    (line,) = invoice(books, "acme", DECEMBER).lines
    assert (line.meter, line.amount) == ("Adjustments", Decimal("-0.0011346"))


@pytest.mark.parametrize(
    ("exact", "due"),
    [
        ("0.005", "0.00"),
        ("0.015", "0.02"),
        ("0.025", "0.02"),
        ("0.02500000000000001", "0.03"),
        ("1234567890123.455", "1234567890123.46"),
    ],
)
def test_an_invoice_is_rounded_once_half_to_even(books: Books, exact: str, due: str) -> None:
    """The total, never a line."""
    made = invoice(books, KEY, NOVEMBER)
    rounded = type(made)(made.customer, made.period, made.lines, Decimal(exact)).due
    assert f"{rounded:f}" == due

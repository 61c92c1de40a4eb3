"""One customer's month: exact lines, and one rounding on the total."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from provider_core.billing.audit.books import Books, Period
from provider_core.billing.audit.skus import charges
from provider_core.billing.money import add_money

_CENT = Decimal("0.01")
_ROUNDING = Context(prec=50, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True, order=True)
class InvoiceLine:
    """One unit of one model at one price.

    Attributes:
        model: Public id.
        meter: What is counted, such as `Input Tokens`; `Adjustments` for corrections.
        unit_price: USD, exact; of adjustments, 0.
        quantity: How many; of adjustments, how often.
        amount: USD, exact.
    """

    model: str
    meter: str
    unit_price: Decimal
    quantity: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Invoice:
    """What somebody owes for a period.

    Attributes:
        customer: Account, or key where keys have none.
        lines: In order of model and meter.
        exact: USD, the sum of the lines.
    """

    customer: str
    period: Period
    lines: tuple[InvoiceLine, ...]
    exact: Decimal

    @property
    def due(self) -> Decimal:
        """USD with two decimals: the exact sum, rounded once, half to even."""
        return self.exact.quantize(_CENT, context=_ROUNDING)


def invoice(books: Books, customer: str, period: Period) -> Invoice:
    """Sum what a customer was billed, by unit and price.

    Args:
        books: Every event counts once.
        customer: An `account_id` or an `api_key_id`.
        period: Of the events' timestamps; an adjustment belongs to its own.
    """
    quantities: dict[tuple[str, str, Decimal], int] = defaultdict(int)
    amounts: dict[tuple[str, str, Decimal], Decimal] = defaultdict(Decimal)
    for event in books.events(period):
        if customer not in (event["account_id"], event["api_key_id"]):
            continue
        for meter, unit_price, quantity, amount in _lines(event):
            key = event["model"], meter, unit_price
            quantities[key] += quantity
            amounts[key] = add_money(amounts[key], amount)
    lines = tuple(sorted(InvoiceLine(*key, quantities[key], amounts[key]) for key in amounts))
    exact = Decimal(0)
    for line in lines:
        exact = add_money(exact, line.amount)
    return Invoice(customer, period, lines, exact)


def _lines(event: Mapping[str, Any]) -> list[tuple[str, Decimal, int, Decimal]]:
    if event["event"] == "usage.adjustment":
        return [("Adjustments", Decimal(0), 1, Decimal(event["cost_delta"]))]
    return [
        (charge.meter, charge.unit_price, charge.quantity, charge.cost)
        for charge in charges(event)
        if event["billable"]
    ]

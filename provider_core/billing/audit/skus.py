"""A bill taken apart: how much of each thing that has a price, and what that part costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from provider_core.billing.audit.line_rules import prices_of
from provider_core.billing.money import cost_of
from provider_core.prices import Prices
from provider_core.types import Usage


@dataclass(frozen=True, slots=True)
class Charge:
    """A part of a bill.

    Attributes:
        sku: Short name of the unit, such as `prompt`.
        meter: The same for people, such as `Input Tokens`.
        unit: `Tokens`, `Requests` or `Images`.
        quantity: How many.
        unit_price: USD, exact.
        cost: USD, exact: their product.
    """

    sku: str
    meter: str
    unit: str
    quantity: int
    unit_price: Decimal
    cost: Decimal


def charges(event: Mapping[str, Any]) -> list[Charge]:
    """Take a valid `usage.final` apart; the parts' costs add up to its `list_cost`.

    Parts of nothing are left out, so a request without a price per request has no such part.
    """
    prices = prices_of(event)
    read, write = prices.input_cache_read, prices.input_cache_write
    thinking = prices.internal_reasoning
    cached, written = event["cached_tokens"], event["cache_write_tokens"]
    reasoning = event["reasoning_tokens"]
    fresh = event["prompt_tokens"] - cached - written
    spoken = event["completion_tokens"] - reasoning
    parts = (
        ("prompt", "Input Tokens", "Tokens", fresh, prices.prompt),
        ("cache_read", "Cached Input Tokens", "Tokens", cached, _or(read, prices.prompt)),
        ("cache_write", "Cache Write Tokens", "Tokens", written, _or(write, prices.prompt)),
        ("completion", "Output Tokens", "Tokens", spoken, prices.completion),
        ("reasoning", "Reasoning Tokens", "Tokens", reasoning, _or(thinking, prices.completion)),
        ("image", "Images", "Images", event["image_count"], prices.image),
        ("request", "Requests", "Requests", 1 if prices.request else 0, prices.request),
    )
    return [
        Charge(sku, meter, unit, quantity, price, _product(quantity, price))
        for sku, meter, unit, quantity, price in parts
        if quantity
    ]


def _or(price: Decimal | None, fallback: Decimal) -> Decimal:
    return fallback if price is None else price


def _product(quantity: int, price: Decimal) -> Decimal:
    return cost_of(Prices(prompt=price), Usage(prompt_tokens=quantity))

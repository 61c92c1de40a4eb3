"""A model's prices as listings show them: exact decimal strings, never an exponent.

The flat form is OpenRouter's, of its public list of models and of its older provider format. The
list of OpenAI's dialect carries it too.
"""

from decimal import Decimal
from typing import Any

from provider_core.prices import Prices

_ALWAYS = ("prompt", "completion", "request", "image")
_IF_SET = ("input_cache_read", "input_cache_write", "internal_reasoning")
_BY_CONDITION = ("prompt", "completion", *_IF_SET)


def flat_pricing(prices: Prices) -> dict[str, Any]:
    """Prices by name, USD per unit, with the conditional ones under `overrides`.

    A tier's `min_prompt_tokens` is one less than ours: it begins above that number.
    """
    pricing: dict[str, Any] = _amounts(prices, (*_ALWAYS, *_IF_SET))
    overrides: list[dict[str, Any]] = [
        {"min_prompt_tokens": tier.min_prompt_tokens - 1, **_amounts(tier.prices, _BY_CONDITION)}
        for tier in prices.tiers
    ]
    overrides += [
        {
            "utc_start": window.utc_start,
            "utc_end": window.utc_end,
            **_amounts(window.prices, _BY_CONDITION),
        }
        for window in prices.windows
    ]
    if overrides:
        pricing["overrides"] = overrides
    return pricing


def price_string(price: Decimal) -> str:
    """A price without exponent, with the zeros it was written with."""
    return format(price, "f")


def _amounts(prices: Prices, names: tuple[str, ...]) -> dict[str, str]:
    amounts = {name: getattr(prices, name) for name in names}
    return {name: price_string(price) for name, price in amounts.items() if price is not None}

"""Exact money."""

import json
import re
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.billing import cost_of, format_money, price_list
from provider_core.errors import ConfigurationError
from provider_core.prices import Prices, PriceTier, PriceWindow
from provider_core.types import Usage

MONEY = re.compile(r"^-?(0|[1-9][0-9]*)(\.[0-9]{1,18})?$")

decimals = st.decimals(
    min_value=0, max_value=10**6, allow_nan=False, allow_infinity=False, places=18
)
maybe_decimals = st.none() | decimals
price_lists = st.builds(
    Prices,
    prompt=decimals,
    completion=decimals,
    request=decimals,
    image=decimals,
    input_cache_read=maybe_decimals,
    input_cache_write=maybe_decimals,
    internal_reasoning=maybe_decimals,
)


@st.composite
def counts(draw: st.DrawFn) -> tuple[Usage, int]:
    """Consistent counts up to 2^40, and cache writes."""
    prompt, completion = draw(st.integers(0, 2**40)), draw(st.integers(0, 2**40))
    cached = draw(st.integers(0, prompt))
    usage = Usage(
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        reasoning_tokens=draw(st.integers(0, completion)),
    )
    return usage, draw(st.integers(0, prompt - cached))


@given(price_lists, counts(), st.integers(0, 64))
def test_b18_cost_is_the_formula_in_fractions(
    prices: Prices, usage_and_writes: tuple[Usage, int], images: int
) -> None:
    """Whatever the prices and counts, the cost is the exact rational number, and prints exactly."""
    price_list(prices)
    usage, writes = usage_and_writes

    def fraction(price: Decimal | None, fallback: Decimal) -> Fraction:
        return Fraction(fallback if price is None else price)

    expected = (
        (usage.prompt_tokens - usage.cached_tokens - writes) * Fraction(prices.prompt)
        + usage.cached_tokens * fraction(prices.input_cache_read, prices.prompt)
        + writes * fraction(prices.input_cache_write, prices.prompt)
        + (usage.completion_tokens - usage.reasoning_tokens) * Fraction(prices.completion)
        + usage.reasoning_tokens * fraction(prices.internal_reasoning, prices.completion)
        + images * Fraction(prices.image)
        + Fraction(prices.request)
    )
    cost = cost_of(prices, usage, cache_write_tokens=writes, image_count=images)
    assert Fraction(cost) == expected
    assert Fraction(format_money(cost)) == expected
    assert MONEY.match(format_money(cost))


def test_the_caller_s_decimal_context_changes_nothing() -> None:
    """A plugin that sets a coarse precision does not round our bills."""
    usage = Usage(prompt_tokens=123_456_789)
    with localcontext() as context:
        context.prec = 2
        cost = cost_of(Prices(prompt=Decimal("0.000000123")), usage)
        assert format_money(cost) == "15.185185047"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0"),
        ("0E-18", "0"),
        ("-0", "0"),
        ("1E+3", "1000"),
        ("1E-18", "0.000000000000000001"),
        ("10.500", "10.5"),
        ("-0.25", "-0.25"),
    ],
)
def test_format_has_no_exponent_and_no_spare_zeros(amount: str, text: str) -> None:
    """The printed amount is what the usage event's pattern accepts."""
    assert format_money(Decimal(amount)) == text
    assert MONEY.match(text)


@pytest.mark.parametrize(
    "price",
    ["-0.1", "NaN", "Infinity", "1E+9", "0.0000000000000000001", "123.00000000000000000001"],
)
def test_prices_that_cannot_be_billed_are_refused(price: str) -> None:
    """Negative, endless, absurd or too fine prices stop start-up and name the price."""
    with pytest.raises(ConfigurationError, match="price completion"):
        price_list(Prices(completion=Decimal(price)))


def test_a_float_is_no_price() -> None:
    """0.1 as a float is not a tenth."""
    inexact: Any = 0.1
    with pytest.raises(ConfigurationError, match="decimal string"):
        price_list(Prices(prompt=inexact))


def test_price_list_strings_leave_out_what_falls_back() -> None:
    """A consumer applies the fallbacks of the formula itself."""
    listed = price_list(Prices(prompt=Decimal("5e-8"), input_cache_read=Decimal("0.000000025")))
    assert dict(listed.strings) == {
        "prompt": "0.00000005",
        "completion": "0",
        "request": "0",
        "image": "0",
        "input_cache_read": "0.000000025",
    }
    assert json.dumps(dict(listed.strings))
    assert not listed.is_free
    assert price_list(Prices()).is_free


def test_prices_of_tiers_and_windows_are_checked_with_the_others() -> None:
    """A price that cannot be billed stops the start wherever it stands."""
    bad = Prices(prompt=Decimal(-1))
    tier = PriceTier(min_prompt_tokens=1, prices=bad)
    window = PriceWindow(utc_start=0, utc_end=1, prices=bad)
    for prices in (Prices(tiers=(tier,)), Prices(windows=(window,))):
        with pytest.raises(ConfigurationError, match="price prompt"):
            price_list(prices)


def test_version_is_the_given_one_or_a_digest() -> None:
    """Two unversioned lists share a version exactly if their prices are equal."""
    assert price_list(Prices(version="2026-11")).version == "2026-11"
    cheap = price_list(Prices(prompt=Decimal("0.10"))).version
    assert re.fullmatch(r"sha256:[0-9a-f]{16}", cheap)
    assert price_list(Prices(prompt=Decimal("0.1"))).version == cheap
    assert price_list(Prices(prompt=Decimal("0.2"))).version != cheap

"""Exact money: prices and costs in USD, never a binary float, never rounded.

A price has at most 18 decimals and a counter is below 2^53, so every product and sum fits the 50
digits of the context and its traps cannot fire on prices that `PriceList` accepted.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import (
    Context,
    Decimal,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Rounded,
)
from functools import lru_cache
from types import MappingProxyType

import orjson

from provider_core.errors import ConfigurationError
from provider_core.prices import Prices
from provider_core.types import Usage

_EXACT = Context(prec=50, traps=[Inexact, Rounded, InvalidOperation, FloatOperation])
_MAX_DECIMALS = 18
_MAX_PRICE = Decimal(10) ** 9
_UNVERSIONED = Prices().version

_NAMES = (
    "prompt",
    "completion",
    "request",
    "image",
    "input_cache_read",
    "input_cache_write",
    "internal_reasoning",
)


@dataclass(frozen=True, slots=True)
class PriceList:
    """Prices of one model as they are billed and shown.

    Attributes:
        prices: The exact numbers.
        strings: The same as decimal strings, without those that fall back.
        version: The given version, or a digest of the numbers where none is given.
        is_free: Every price is 0.
    """

    prices: Prices
    strings: Mapping[str, str]
    version: str
    is_free: bool


@lru_cache(maxsize=4096)  # asked at every admission, for as many price lists as models
def price_list(prices: Prices) -> PriceList:
    """Check prices and freeze them into what a bill quotes.

    Raises:
        ConfigurationError: A price is a float, negative, not finite, has more than 18 decimals or
            is a billion dollars and more.
    """
    for exceptional in _exceptional(prices):
        price_list(exceptional)
    strings = {}
    for name in _NAMES:
        price = getattr(prices, name)
        if price is not None:
            _check_price(name, price)
            strings[name] = format_money(price)
    version = prices.version
    if version == _UNVERSIONED:
        canonical = orjson.dumps(strings, option=orjson.OPT_SORT_KEYS)
        version = "sha256:" + hashlib.sha256(canonical).hexdigest()[:16]
    return PriceList(
        prices=prices,
        strings=MappingProxyType(strings),
        version=version,
        is_free=all(string == "0" for string in strings.values()),
    )


def prices_at(prices: Prices, unix_s: float) -> Prices:
    """The prices of a request received at a time: those of its window, or else the base ones."""
    if not prices.windows:
        return prices
    minutes = int(unix_s // 60) % (24 * 60)
    clock_time = minutes // 60 * 100 + minutes % 60
    for window in prices.windows:
        if window.covers(clock_time):
            return window.prices
    return prices


def prices_for(prices: Prices, prompt_tokens: int) -> tuple[int, Prices]:
    """The prices of a request by the length of its prompt.

    Returns:
        The number of the tier, 0 for none, and its prices.
    """
    for number in range(len(prices.tiers), 0, -1):
        tier = prices.tiers[number - 1]
        if prompt_tokens >= tier.min_prompt_tokens:
            return number, tier.prices
    return 0, prices


def cost_of(
    prices: Prices, usage: Usage, *, cache_write_tokens: int = 0, image_count: int = 0
) -> Decimal:
    """What a generation costs by its price list, in USD, exact.

    ::

        cost = (prompt - cached - cache_write) * p.prompt + cached * p.input_cache_read
             + cache_write * p.input_cache_write
             + (completion - reasoning) * p.completion + reasoning * p.internal_reasoning
             + image_count * p.image + p.request

    A missing cache price is the prompt price, a missing reasoning price the completion price.

    Args:
        prices: USD per one unit.
        usage: `cached_tokens` at most `prompt_tokens`, `reasoning_tokens` at most
            `completion_tokens`.
        cache_write_tokens: Prompt tokens written to a cache that charges for it.
        image_count: Images in the prompt.

    Raises:
        decimal.Inexact: The prices were not accepted by `price_list`.
    """
    cached, reasoning = usage.cached_tokens, usage.reasoning_tokens
    cache_read = prices.prompt if prices.input_cache_read is None else prices.input_cache_read
    cache_write = prices.prompt if prices.input_cache_write is None else prices.input_cache_write
    thinking = prices.completion if prices.internal_reasoning is None else prices.internal_reasoning
    total = prices.request
    for count, price in (
        (usage.prompt_tokens - cached - cache_write_tokens, prices.prompt),
        (cached, cache_read),
        (cache_write_tokens, cache_write),
        (usage.completion_tokens - reasoning, prices.completion),
        (reasoning, thinking),
        (image_count, prices.image),
    ):
        if count:
            total = _EXACT.fma(price, count, total)
    return total


def add_money(amount: Decimal, other: Decimal) -> Decimal:
    """The exact sum, whatever decimal context the caller is in."""
    return _EXACT.add(amount, other)


def highest_cost(
    prices: Prices, num_prompt_tokens: int, max_tokens: int, *, image_count: int = 0
) -> Decimal:
    """The most that a request can cost: nothing cached, and all of the longest reply.

    Args:
        prices: Of the time it was received.
        num_prompt_tokens: Its prompts', each once.
        max_tokens: Of all its choices together.
        image_count: Images in the prompt.
    """
    _, tier = prices_for(prices, num_prompt_tokens)
    usage = Usage(prompt_tokens=num_prompt_tokens, completion_tokens=max_tokens)
    thinking = replace(usage, reasoning_tokens=max_tokens)
    read = replace(usage, cached_tokens=num_prompt_tokens)
    read_and_thinking = replace(thinking, cached_tokens=num_prompt_tokens)
    cases = (usage, thinking, read, read_and_thinking)
    return max(cost_of(tier, case, image_count=image_count) for case in cases)


def format_money(amount: Decimal) -> str:
    """Write an amount without exponent and without trailing zeros, e.g. `0.0000342`."""
    return format(_EXACT.normalize(amount), "f") if amount else "0"


def _exceptional(prices: Prices) -> list[Prices]:
    tiers = [tier.prices for tier in prices.tiers]
    return tiers + [window.prices for window in prices.windows]


def _check_price(name: str, price: object) -> None:
    if not isinstance(price, Decimal):
        raise ConfigurationError(f"price {name} must be a decimal string, not {price!r}")
    if not price.is_finite() or price < 0 or price >= _MAX_PRICE:
        raise ConfigurationError(f"price {name} must be at least 0 and below 10^9, not {price}")
    decimals = format(price, "f").partition(".")[2].rstrip("0")
    if len(decimals) > _MAX_DECIMALS:
        raise ConfigurationError(f"price {name} has over {_MAX_DECIMALS} decimals: {price}")

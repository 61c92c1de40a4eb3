"""Money as OpenRouter's documents show it: JSON numbers that keep every digit."""

from decimal import Decimal
from typing import Any

import orjson

from provider_core.billing.ledger_rows import Spending
from provider_core.billing.money import format_money
from provider_core.quotas import SpendLimit


def number(amount: Decimal) -> orjson.Fragment:
    """An exact decimal."""
    return orjson.Fragment(format_money(amount))


def limit_fields(limit: SpendLimit | None, spending: Spending) -> dict[str, Any]:
    """What a key may spend, and what is left of it."""
    if limit is None:
        shown, left, reset = None, None, None
    else:
        shown, reset = number(limit.usd), limit.reset
        left = number(max(limit.usd - spending.since(limit.reset), Decimal(0)))
    return {
        "limit": shown,
        "limit_remaining": left,
        "limit_reset": reset,
        "include_byok_in_limit": False,
    }


def usage_fields(spending: Spending) -> dict[str, Any]:
    """What a key has spent: in all, today, this week, this month, in UTC."""
    return {
        "usage": number(spending.total),
        "usage_daily": number(spending.day),
        "usage_weekly": number(spending.week),
        "usage_monthly": number(spending.month),
        "byok_usage": 0,
        "byok_usage_daily": 0,
        "byok_usage_weekly": 0,
        "byok_usage_monthly": 0,
    }

"""What one API key may use: how fast, and for how much money. Standard library only, as `types`."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

SpendReset = Literal["daily", "weekly", "monthly"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """How fast a key may be used. `None` leaves the decision to the settings.

    Attributes:
        requests_per_minute: Refused ones do not count.
        requests_per_day: The same over 24 hours.
        tokens_per_minute: Prompt and completion together.
        concurrent_requests: Under way at the same time.
    """

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


@dataclass(frozen=True, slots=True)
class SpendLimit:
    """What a key may cost.

    Attributes:
        usd: Exact.
        reset: When it is counted from 0 again: at midnight UTC, of every day, of Mondays, or of
            the first day of a month. `None` is never.
    """

    usd: Decimal
    reset: SpendReset | None = None

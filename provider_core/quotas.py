"""What one API key may use: how fast, and for how much money. Standard library only, as `types`."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

SpendReset = Literal["daily", "weekly", "monthly"]
Unit = Literal["requests", "tokens"]
Period = Literal["minute", "day"]


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


@dataclass(frozen=True, slots=True)
class RateBucket:
    """What counts one rate: full at first, it fills steadily and is emptied by requests.

    Attributes:
        name: Of whom it counts what, and its capacity: with another one it is another bucket.
        capacity: What it holds, and what flows in during `period_s`.
        period_s: Seconds.
    """

    name: str
    capacity: int
    period_s: float

    @property
    def rate(self) -> float:
        """What flows in each second."""
        return self.capacity / self.period_s


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """How many requests may run at the same time.

    Attributes:
        name: Whose.
        capacity: So many.
    """

    name: str
    capacity: int


@dataclass(frozen=True, slots=True)
class RateStatus:
    """What a client is told of one kind of limit.

    Attributes:
        limit: In one period.
        remaining: Whole ones that could be taken now.
        reset_s: Until the bucket is full.
    """

    limit: int
    remaining: int
    reset_s: float

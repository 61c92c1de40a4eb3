"""How fast keys may be used: buckets that fill at a steady rate and are emptied by requests.

A bucket holds one period's worth and is full at first, so a burst of a whole minute's requests is
let in, and then one whenever there is room again. What headers say follows from it: the time until
a bucket is full, and the time until a refused request would be let in, are exact.

Tokens are counted twice. At admission a request takes its prompt and as much as replies to this key
have had lately; when it has ended, it takes or gives back what that was wrong by. So a bucket may
be in debt, and a request of more than a whole bucket is let in when the bucket is full.

All of it is arithmetic in memory, on one thread: checking and taking cannot be torn apart.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from provider_core.errors import RateLimited
from provider_core.quotas import RateLimits
from provider_core.types import Usage

Unit = Literal["requests", "tokens"]
Period = Literal["minute", "day"]

_PERIODS_S: dict[Period, float] = {"minute": 60.0, "day": 86400.0}
_UNLIMITED = RateLimits()
_MAX_METERS = 100_000  # of keys and models; the longest unused one is forgotten first
_FIRST_REPLY_TOKENS = 256.0  # expected of a key that has had none
_NEW_REPLY_WEIGHT = 0.1
_MAX_ADDRESSES = 10_000
_BUSY_RETRY_S = 1.0


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


class Bucket:
    """One limit of one key.

    Args:
        capacity: What it holds, and what flows in during `period_s`.
        period_s: Seconds.
        now_s: On a clock that only grows, as everywhere here.
    """

    __slots__ = ("_level", "_updated_s", "capacity", "rate")

    def __init__(self, capacity: int, period_s: float, now_s: float) -> None:
        self.capacity = capacity
        self.rate = capacity / period_s
        self._level = float(capacity)
        self._updated_s = now_s

    def level(self, now_s: float) -> float:
        """What is in it, below 0 if it is in debt."""
        elapsed_s = max(now_s - self._updated_s, 0.0)
        self._level = min(self.capacity, self._level + elapsed_s * self.rate)
        self._updated_s = now_s
        return self._level

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until `amount` can be taken; 0 if it can be now."""
        missing = min(amount, self.capacity) - self.level(now_s)
        return missing / self.rate if missing > 1e-9 else 0.0  # of floating point, not of a limit

    def take(self, amount: float, now_s: float) -> None:
        """Take out, or give back what is below 0."""
        self._level = min(self.capacity, self.level(now_s) - amount)

    def status(self, now_s: float) -> RateStatus:
        """How it stands."""
        level = self.level(now_s)
        return RateStatus(
            limit=self.capacity,
            remaining=max(math.floor(level + 1e-9), 0),
            reset_s=(self.capacity - level) / self.rate,
        )


class _Limit:
    """A bucket and what to call it when it is empty."""

    __slots__ = ("bucket", "period", "unit")

    def __init__(self, capacity: int, unit: Unit, period: Period, now_s: float) -> None:
        self.bucket = Bucket(capacity, _PERIODS_S[period], now_s)
        self.unit = unit
        self.period = period

    def refusal(self, wait_s: float) -> RateLimited:
        """The error that says so."""
        wait_s = math.ceil(wait_s * 1000) / 1000
        return RateLimited(
            f"the limit of {self.bucket.capacity} {self.unit} per {self.period} is reached; "
            f"try again in {wait_s:g} s",
            code=f"{self.unit}_per_{self.period}",
            retry_after_s=wait_s,
        )


class _Meter:
    """All that is counted of one key, or of one key at one model."""

    __slots__ = ("expected_reply", "limits", "num_running", "source")

    def __init__(self, source: RateLimits, now_s: float) -> None:
        capacities: tuple[tuple[int | None, Unit, Period], ...] = (
            (source.requests_per_minute, "requests", "minute"),
            (source.requests_per_day, "requests", "day"),
            (source.tokens_per_minute, "tokens", "minute"),
        )
        self.limits = [
            _Limit(capacity, unit, period, now_s)
            for capacity, unit, period in capacities
            if capacity is not None
        ]
        self.source = source
        self.expected_reply = _FIRST_REPLY_TOKENS
        self.num_running = 0


class RateTicket:
    """What one request has taken so far. Whoever has one must `RateLimiter.leave`."""

    __slots__ = ("key_id", "meters", "num_entered", "num_tokens")

    def __init__(self, key_id: str, meter: _Meter) -> None:
        self.key_id = key_id
        self.meters = [meter]
        self.num_entered = 0  # of the meters: where it counts as running
        self.num_tokens = 0.0

    def limits(self, unit: Unit) -> list[_Limit]:
        """All that count this unit."""
        return [limit for meter in self.meters for limit in meter.limits if limit.unit == unit]


class RateLimiter:
    """Counts what every key uses.

    Args:
        defaults: Of keys that have no limits of their own.
    """

    def __init__(self, defaults: RateLimits) -> None:
        self._defaults = defaults
        self._meters: OrderedDict[str, _Meter] = OrderedDict()

    def open(self, key_id: str, own: RateLimits, now_s: float) -> RateTicket | None:
        """A ticket for a request; `None` if nothing limits its key."""
        limits = _either(own, self._defaults)
        if limits == _UNLIMITED:
            return None
        return RateTicket(key_id, self._meter(key_id, limits, now_s))

    def at_model(
        self, ticket: RateTicket | None, key_id: str, model: str, limits: RateLimits, now_s: float
    ) -> RateTicket | None:
        """Add the limits of a model, which hold for each key by itself; `enter` counts them.

        Returns:
            The same ticket, or the first one; `None` if nothing is limited.
        """
        if limits == _UNLIMITED:
            return ticket
        meter = self._meter(f"{key_id} {model}", limits, now_s)
        if ticket is None:
            return RateTicket(key_id, meter)
        ticket.meters.append(meter)
        return ticket

    def enter(self, ticket: RateTicket, now_s: float) -> None:
        """Count a request, once by each of its limits.

        Raises:
            RateLimited: There were too many lately, or there are at this time.
        """
        for meter in ticket.meters[ticket.num_entered :]:
            most = meter.source.concurrent_requests
            if most is not None and meter.num_running >= most:
                raise RateLimited(
                    f"the limit of {most} requests at the same time is reached",
                    code="concurrency_limit",
                    retry_after_s=_BUSY_RETRY_S,
                )
            _take([limit for limit in meter.limits if limit.unit == "requests"], 1, now_s)
            meter.num_running += 1
            ticket.num_entered += 1

    def take_tokens(
        self, ticket: RateTicket, num_prompt_tokens: int, max_tokens: int, now_s: float
    ) -> None:
        """Count the tokens of a request, those of its reply as far as they can be expected.

        Raises:
            RateLimited: There were too many lately; none is counted.
        """
        self._return_tokens(ticket, now_s)  # of an attempt at another model
        expected = max(meter.expected_reply for meter in ticket.meters)
        amount = num_prompt_tokens + min(expected, max_tokens)
        _take(ticket.limits("tokens"), amount, now_s)
        ticket.num_tokens = amount

    def leave(self, ticket: RateTicket, usage: Usage | None, now_s: float) -> None:
        """End a request. Idempotent.

        Args:
            ticket: What it took.
            usage: What it used, if it ran; else its tokens are given back.
            now_s: The time.
        """
        self._return_tokens(ticket, now_s)
        if usage is not None and ticket.num_entered:
            for limit in ticket.limits("tokens"):
                limit.bucket.take(usage.total_tokens, now_s)
            for meter in ticket.meters:
                change = usage.completion_tokens - meter.expected_reply
                meter.expected_reply += _NEW_REPLY_WEIGHT * change
        for meter in ticket.meters[: ticket.num_entered]:
            meter.num_running -= 1
        ticket.num_entered = 0

    def forgive(self, ticket: RateTicket, now_s: float) -> None:
        """Do not count a request that has cost nothing."""
        for meter in ticket.meters[: ticket.num_entered]:
            for limit in meter.limits:
                if limit.unit == "requests":
                    limit.bucket.take(-1, now_s)

    def status(self, ticket: RateTicket, now_s: float) -> dict[Unit, RateStatus]:
        """How the limits of a request stand: of each unit the one that will be reached first."""
        found: dict[Unit, RateStatus] = {}
        units: tuple[Unit, ...] = ("requests", "tokens")
        for unit in units:
            buckets = [limit.bucket for limit in ticket.limits(unit)]
            if buckets:
                first = min(buckets, key=lambda bucket: bucket.level(now_s))
                found[unit] = first.status(now_s)
        return found

    def _meter(self, name: str, limits: RateLimits, now_s: float) -> _Meter:
        meter = self._meters.get(name)
        if meter is None or meter.source != limits:
            meter = self._meters[name] = _Meter(limits, now_s)
        self._meters.move_to_end(name)
        if len(self._meters) > _MAX_METERS:
            self._meters.popitem(last=False)
        return meter

    def _return_tokens(self, ticket: RateTicket, now_s: float) -> None:
        if ticket.num_tokens:
            for limit in ticket.limits("tokens"):
                limit.bucket.take(-ticket.num_tokens, now_s)
            ticket.num_tokens = 0.0


class FailedAttempts:
    """Wrong keys from each address: so many a minute are answered by what they are.

    More of them are told to wait. Right keys are never counted, so nobody is locked out.

    Args:
        per_minute: How many.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def count(self, address: str, now_s: float) -> None:
        """Count one.

        Raises:
            RateLimited: One too many.
        """
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = Bucket(self._per_minute, 60, now_s)
        self._buckets.move_to_end(address)
        if len(self._buckets) > _MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        wait_s = bucket.wait_s(1, now_s)
        if wait_s:
            raise RateLimited("too many wrong API keys from this address", retry_after_s=wait_s)
        bucket.take(1, now_s)


def _take(limits: list[_Limit], amount: float, now_s: float) -> None:
    """Take from all or none."""
    waits = [(limit.bucket.wait_s(amount, now_s), limit) for limit in limits]
    if waits:
        wait_s, slowest = max(waits, key=lambda wait: wait[0])
        if wait_s:
            raise slowest.refusal(wait_s)
    for limit in limits:
        limit.bucket.take(amount, now_s)


def _either(own: RateLimits, defaults: RateLimits) -> RateLimits:
    if own == _UNLIMITED:
        return defaults
    pairs = {
        name: getattr(defaults, name) if getattr(own, name) is None else getattr(own, name)
        for name in RateLimits.__slots__
    }
    return RateLimits(**pairs)

"""Rates and running requests in memory, each server by itself.

A bucket holds one period's worth and is full at first, so a burst of a whole minute's requests is
let in, and then one whenever there is room again. What headers say follows from it: the time until
a bucket is full, and the time until a refused request would be let in, are exact.

All of it is arithmetic on one thread: checking and taking cannot be torn apart.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence

from provider_core.errors import RateLimited
from provider_core.interfaces import Clock
from provider_core.quotas import ConcurrencyLimit, RateBucket
from provider_core.stores import Taking

_ROUNDING = 1e-9  # of floating point, not of a limit
_MAX_BUCKETS = 200_000  # the longest unused one is forgotten first: it is full again
_MAX_ADDRESSES = 10_000


class Bucket:
    """The content of a bucket.

    Args:
        shape: What it can hold.
        now_s: On a clock that only grows, as everywhere here.
    """

    __slots__ = ("_capacity", "_level", "_rate", "_updated_s")

    def __init__(self, shape: RateBucket, now_s: float) -> None:
        self._capacity = shape.capacity
        self._rate = shape.rate
        self._level = float(shape.capacity)
        self._updated_s = now_s

    def level(self, now_s: float) -> float:
        """What is in it, below 0 if it is in debt."""
        elapsed_s = now_s - self._updated_s
        if elapsed_s > 0:
            self._updated_s = now_s
            level = self._level + elapsed_s * self._rate
            self._level = min(self._capacity, level)
        return self._level

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until `amount` can be taken; 0 if it can be now."""
        if amount <= 0:
            return 0.0
        missing = min(amount, self._capacity) - self.level(now_s)
        return missing / self._rate if missing > _ROUNDING else 0.0

    def take(self, amount: float, now_s: float) -> float:
        """Take out, or put in what is below 0; returns what is in it then."""
        self._level = min(self._capacity, self.level(now_s) - amount)
        return self._level

    def set(self, level: float, now_s: float) -> None:
        """Say what is in it."""
        self._level, self._updated_s = level, now_s


class MemoryLimitStore:
    """The `LimitStore` of one server.

    Args:
        clock: The time.
    """

    def __init__(self, clock: Clock = time) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._running: dict[str, set[str]] = {}

    async def take(
        self,
        request_id: str,
        amounts: Sequence[tuple[RateBucket, float]],
        concurrency: Sequence[ConcurrencyLimit] = (),
    ) -> Taking:
        """Take everything or nothing."""
        now_s = self._clock.monotonic()
        buckets = [self._bucket(shape, now_s) for shape, _ in amounts]
        running = tuple([self._num_others(limit, request_id) for limit in concurrency])
        levels = []
        is_taken = True
        for bucket, (_, amount) in zip(buckets, amounts, strict=True):
            is_taken = is_taken and not bucket.wait_s(amount, now_s)
        for limit, others in zip(concurrency, running, strict=True):
            is_taken = is_taken and others < limit.capacity
        for bucket, (_, amount) in zip(buckets, amounts, strict=True):
            levels.append(bucket.take(amount if is_taken else 0, now_s))
        if is_taken:
            for limit in concurrency:
                self._running.setdefault(limit.name, set()).add(request_id)
        return Taking(is_taken, tuple(levels), running)

    def give_back(
        self,
        request_id: str,
        amounts: Sequence[tuple[RateBucket, float]],
        concurrency: Sequence[ConcurrencyLimit] = (),
    ) -> None:
        """Put amounts back, and no longer count the request as running."""
        now_s = self._clock.monotonic()
        for shape, amount in amounts:
            self._bucket(shape, now_s).take(-amount, now_s)
        for limit in concurrency:
            running = self._running.get(limit.name)
            if running is not None:
                running.discard(request_id)
                if not running:
                    del self._running[limit.name]

    async def close(self) -> None:
        """Nothing is open."""

    def _num_others(self, limit: ConcurrencyLimit, request_id: str) -> int:
        running = self._running.get(limit.name, ())
        return len(running) - (request_id in running)

    def _bucket(self, shape: RateBucket, now_s: float) -> Bucket:
        bucket = self._buckets.get(shape.name)
        if bucket is None:
            bucket = self._buckets[shape.name] = Bucket(shape, now_s)
            if len(self._buckets) > _MAX_BUCKETS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(shape.name)
        return bucket


class FailedAttempts:
    """Wrong keys from each address: so many a minute are answered by what they are.

    More of them are told to wait. Right keys are never counted, so nobody is locked out.

    Args:
        per_minute: How many.
    """

    def __init__(self, per_minute: int) -> None:
        self._shape = RateBucket("wrong keys", per_minute, 60.0)
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def count(self, address: str, now_s: float) -> None:
        """Count one.

        Raises:
            RateLimited: One too many.
        """
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = Bucket(self._shape, now_s)
        self._buckets.move_to_end(address)
        if len(self._buckets) > _MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        wait_s = bucket.wait_s(1, now_s)
        if wait_s:
            raise RateLimited("too many wrong API keys from this address", retry_after_s=wait_s)
        bucket.take(1, now_s)

"""How fast keys may be used: what a request takes of its limits, and what it is told of them.

A limit is a bucket that fills at a steady rate. Tokens are counted twice. At admission a request
takes its prompt and as much as replies to this key have had lately; when it has ended, it takes or
gives back what that was wrong by. So a bucket may be in debt, and a reply may be longer than a
whole bucket. A prompt may not: it would never fit.

Where buckets are kept is the store's business. One that fails closes nothing: until it answers
again this server counts by itself.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import structlog

from provider_core.access.limit_store import Bucket, MemoryLimitStore
from provider_core.errors import RateLimited
from provider_core.interfaces import Clock
from provider_core.quotas import (
    ConcurrencyLimit,
    Period,
    RateBucket,
    RateLimits,
    RateStatus,
    Unit,
)
from provider_core.stores import LimitStore, Taking
from provider_core.types import Usage

log = structlog.get_logger()

_PERIODS_S: dict[Period, float] = {"minute": 60.0, "day": 86400.0}
_UNITS: tuple[Unit, ...] = ("requests", "tokens")
_UNLIMITED = RateLimits()
_MAX_METERS = 100_000  # of keys and models; the longest unused one is forgotten first
_FIRST_REPLY_TOKENS = 256.0  # expected of a key that has had none
_NEW_REPLY_WEIGHT = 0.1
_BUSY_RETRY_S = 1.0
_LEAST_WAIT_S = 0.001
_STORE_RETRY_S = 1.0


class _Limit:
    """One bucket, what to call it when it is empty, and what was last seen in it."""

    __slots__ = ("bucket", "period", "seen", "unit")

    def __init__(self, owner: str, capacity: int, unit: Unit, period: Period, now_s: float) -> None:
        name = f"{owner}:{unit}/{period}:{capacity}"
        self.bucket = RateBucket(name, capacity, _PERIODS_S[period])
        self.unit = unit
        self.period = period
        self.seen = Bucket(self.bucket, now_s)

    def refusal(self, wait_s: float) -> RateLimited:
        """The error that says so."""
        wait_s = math.ceil(max(wait_s, _LEAST_WAIT_S) * 1000) / 1000
        return RateLimited(
            f"the limit of {self.bucket.capacity} {self.unit} per {self.period} is reached; "
            f"try again in {wait_s:g} s",
            code=f"{self.unit}_per_{self.period}",
            retry_after_s=wait_s,
        )

    def status(self, now_s: float) -> RateStatus:
        """How it stands."""
        level = self.seen.level(now_s)
        return RateStatus(
            limit=self.bucket.capacity,
            remaining=max(math.floor(level + 1e-9), 0),
            reset_s=(self.bucket.capacity - level) / self.bucket.rate,
        )


class _Meter:
    """All that is counted of one key, or of one key at one model."""

    __slots__ = ("concurrency", "expected_reply", "limits", "source")

    def __init__(self, owner: str, source: RateLimits, now_s: float) -> None:
        capacities: tuple[tuple[int | None, Unit, Period], ...] = (
            (source.requests_per_minute, "requests", "minute"),
            (source.requests_per_day, "requests", "day"),
            (source.tokens_per_minute, "tokens", "minute"),
        )
        self.limits: Mapping[Unit, list[_Limit]] = {"requests": [], "tokens": []}
        for capacity, unit, period in capacities:
            if capacity is not None:
                self.limits[unit].append(_Limit(owner, capacity, unit, period, now_s))
        most = source.concurrent_requests
        self.concurrency = [] if most is None else [ConcurrencyLimit(owner, most)]
        self.source = source
        self.expected_reply = _FIRST_REPLY_TOKENS


_NO_LIMITS: Mapping[Unit, list[_Limit]] = {"requests": [], "tokens": []}


class RateTicket:
    """What one request has taken so far. Whoever has one must `RateLimiter.leave`."""

    __slots__ = (
        "counted",
        "key",
        "limits",
        "model",
        "num_tokens",
        "request_id",
        "running",
        "store",
    )

    def __init__(self, request_id: str, store: LimitStore, key: _Meter | None) -> None:
        self.request_id = request_id
        self.store = store
        self.key = key
        self.model: _Meter | None = None
        self.limits = _NO_LIMITS if key is None else key.limits  # of both
        self.counted: list[_Limit] = []  # that have counted this request
        self.running: list[ConcurrencyLimit] = []  # that may count it as running
        self.num_tokens: float | None = None  # taken of each limit of tokens, once it is admitted

    @property
    def meters(self) -> list[_Meter]:
        """Of its key and of its model, as far as these are limited."""
        return [meter for meter in (self.key, self.model) if meter is not None]

    def set_model(self, model: _Meter | None) -> None:
        """Put the limits of a model beside those of the key, or take them away."""
        self.model = model
        key = _NO_LIMITS if self.key is None else self.key.limits
        self.limits = (
            key if model is None else {unit: [*key[unit], *model.limits[unit]] for unit in _UNITS}
        )


class RateLimiter:
    """Counts what every key uses.

    Args:
        defaults: Of keys that have no limits of their own.
        store: Where others count, too; by default nobody does.
        clock: The time.
    """

    def __init__(
        self, defaults: RateLimits, store: LimitStore | None = None, clock: Clock = time
    ) -> None:
        self._defaults = defaults
        self._local = MemoryLimitStore(clock)
        self._shared = store
        self._clock = clock
        self._retry_s: float | None = None  # while the shared store fails: when to ask it again
        self._meters: OrderedDict[str, _Meter] = OrderedDict()

    @property
    def is_sharing(self) -> bool | None:
        """Whether replicas are counted together now; `None` if they never are."""
        return None if self._shared is None else self._retry_s is None

    def open(self, request_id: str, key_id: str, own: RateLimits) -> RateTicket | None:
        """A ticket for a request; `None` if nothing limits its key."""
        limits = _either(own, self._defaults)
        if limits == _UNLIMITED:
            return None
        return RateTicket(request_id, self._store(), self._meter(key_id, limits))

    def at_model(
        self,
        ticket: RateTicket | None,
        request_id: str,
        key_id: str,
        model: str,
        limits: RateLimits,
    ) -> RateTicket | None:
        """Add the limits of a model, which hold for each key by itself; `admit` counts them.

        What an attempt at another model has taken is given back.

        Returns:
            The same ticket, or the first one; `None` if nothing is limited.
        """
        if ticket is not None:
            self._leave_model(ticket)
        if limits == _UNLIMITED:
            return ticket
        if ticket is None:
            ticket = RateTicket(request_id, self._store(), None)
        ticket.set_model(self._meter(f"{key_id}@{model}", limits))
        return ticket

    async def enter(self, ticket: RateTicket) -> None:
        """Count a request by the limits of its key, and look at those of tokens.

        Raises:
            RateLimited: There were too many lately, or there are at this time.
        """
        key = ticket.key
        if key is not None:
            tokens = [(limit, 0.0) for limit in key.limits["tokens"]]
            await self._take(ticket, key.limits["requests"], tokens, key.concurrency)

    async def admit(self, ticket: RateTicket, num_prompt_tokens: int, max_tokens: int) -> None:
        """Count it by the limits of its model, and its tokens as far as they can be expected.

        Raises:
            RateLimited: There were too many lately, or the prompt alone is; none is counted.
        """
        limits = ticket.limits["tokens"]
        for limit in limits:
            if num_prompt_tokens > limit.bucket.capacity:
                raise RateLimited(
                    f"the prompt has {num_prompt_tokens} tokens, more than the limit of "
                    f"{limit.bucket.capacity} tokens per {limit.period}; waiting does not help",
                    code="prompt_over_rate_limit",
                )
        expected = max(meter.expected_reply for meter in ticket.meters)
        amount = num_prompt_tokens + min(expected, max_tokens)
        tokens = [(limit, amount) for limit in limits]
        model = ticket.model
        if model is None:
            await self._take(ticket, (), tokens, ())
        else:
            await self._take(ticket, model.limits["requests"], tokens, model.concurrency)
        ticket.num_tokens = amount

    def leave(self, ticket: RateTicket, usage: Usage | None) -> None:
        """End a request. Idempotent.

        Args:
            ticket: What it took.
            usage: What it used, if it ran; else its tokens are given back.
        """
        taken, ticket.num_tokens = ticket.num_tokens, None
        back = 0.0 if taken is None else taken
        if usage is not None and taken is not None:
            back -= usage.total_tokens
            for meter in ticket.meters:
                change = usage.completion_tokens - meter.expected_reply
                meter.expected_reply += _NEW_REPLY_WEIGHT * change
        tokens = [(limit, back) for limit in ticket.limits["tokens"]] if back else []
        running, ticket.running = ticket.running, []
        self._give_back(ticket, tokens, running)

    def forgive(self, ticket: RateTicket) -> None:
        """Do not count a request that has cost nothing."""
        counted, ticket.counted = ticket.counted, []
        self._give_back(ticket, [(limit, 1.0) for limit in counted], ())

    def status(self, ticket: RateTicket) -> dict[Unit, RateStatus]:
        """How the limits of a request stand: of each unit the one that will be reached first.

        As they were when somebody here last asked, and what has flowed in since.
        """
        now_s = self._clock.monotonic()
        found: dict[Unit, RateStatus] = {}
        for unit in _UNITS:
            limits = ticket.limits[unit]
            if limits:
                first = min(limits, key=lambda limit: limit.seen.level(now_s))
                found[unit] = first.status(now_s)
        return found

    async def close(self) -> None:
        """Close the store. Idempotent."""
        if self._shared is not None:
            await self._shared.close()

    def _leave_model(self, ticket: RateTicket) -> None:
        """Undo an admission, all but what the key has counted."""
        model = ticket.model
        taken, ticket.num_tokens = ticket.num_tokens or 0.0, None
        back = [(limit, taken) for limit in ticket.limits["tokens"]] if taken else []
        running: list[ConcurrencyLimit] = []
        if model is not None:
            requests = model.limits["requests"]
            back += [(limit, 1.0) for limit in ticket.counted if limit in requests]
            ticket.counted = [limit for limit in ticket.counted if limit not in requests]
            running = [rule for rule in ticket.running if rule in model.concurrency]
            ticket.running = [rule for rule in ticket.running if rule not in running]
            ticket.set_model(None)
        self._give_back(ticket, back, running)

    async def _take(
        self,
        ticket: RateTicket,
        requests: Sequence[_Limit],
        tokens: Sequence[tuple[_Limit, float]],
        concurrency: Sequence[ConcurrencyLimit],
    ) -> None:
        wanted = [*((limit, 1.0) for limit in requests), *tokens]
        if not wanted and not concurrency:
            return
        ticket.running += concurrency  # before: if we are cancelled meanwhile, it is given back
        amounts = [(limit.bucket, amount) for limit, amount in wanted]
        taking = await self._ask(ticket, amounts, concurrency)
        now_s = self._clock.monotonic()
        for (limit, _), level in zip(wanted, taking.levels, strict=True):
            limit.seen.set(level, now_s)
        if not taking.is_taken:
            for rule, others in zip(concurrency, taking.num_running, strict=True):
                if others >= rule.capacity:
                    raise RateLimited(
                        f"the limit of {rule.capacity} requests at the same time is reached",
                        code="concurrency_limit",
                        retry_after_s=_BUSY_RETRY_S,
                    )
            waits = [(limit.seen.wait_s(amount, now_s), limit) for limit, amount in wanted]
            wait_s, slowest = max(waits, key=lambda wait: wait[0])
            raise slowest.refusal(wait_s)
        ticket.counted += requests

    async def _ask(
        self,
        ticket: RateTicket,
        amounts: Sequence[tuple[RateBucket, float]],
        concurrency: Sequence[ConcurrencyLimit],
    ) -> Taking:
        """Ask the ticket's store, or the memory if that fails; the ticket stays there then."""
        if ticket.store is not self._local:
            try:
                taking = await ticket.store.take(ticket.request_id, amounts, concurrency)
            except Exception as error:  # noqa: BLE001 - whatever a plugin raises: rates are open
                self._store_failed(error)
                ticket.store.give_back(ticket.request_id, (), ticket.running)
                ticket.store = self._local
            else:
                self._store_works()
                return taking
        return await self._local.take(ticket.request_id, amounts, concurrency)

    def _give_back(
        self,
        ticket: RateTicket,
        amounts: Sequence[tuple[_Limit, float]],
        running: Sequence[ConcurrencyLimit],
    ) -> None:
        if amounts or running:
            now_s = self._clock.monotonic()
            for limit, amount in amounts:
                limit.seen.take(-amount, now_s)
            buckets = [(limit.bucket, amount) for limit, amount in amounts]
            ticket.store.give_back(ticket.request_id, buckets, running)

    def _store(self) -> LimitStore:
        """Where a request is counted. While the shared store fails, one a second tries it."""
        if self._shared is None:
            return self._local
        if self._retry_s is not None:
            now_s = self._clock.monotonic()
            if now_s < self._retry_s:
                return self._local
            self._retry_s = now_s + _STORE_RETRY_S
        return self._shared

    def _store_failed(self, error: Exception) -> None:
        if self._retry_s is None:
            log.error("limits.unshared", error=str(error), kind=type(error).__name__)
        self._retry_s = self._clock.monotonic() + _STORE_RETRY_S

    def _store_works(self) -> None:
        if self._retry_s is not None:
            self._retry_s = None
            log.info("limits.shared")

    def _meter(self, owner: str, limits: RateLimits) -> _Meter:
        meter = self._meters.get(owner)
        if meter is None or meter.source != limits:
            meter = self._meters[owner] = _Meter(owner, limits, self._clock.monotonic())
        self._meters.move_to_end(owner)
        if len(self._meters) > _MAX_METERS:
            self._meters.popitem(last=False)
        return meter


def _either(own: RateLimits, defaults: RateLimits) -> RateLimits:
    if own == _UNLIMITED:
        return defaults
    pairs = {
        name: getattr(defaults, name) if getattr(own, name) is None else getattr(own, name)
        for name in RateLimits.__slots__
    }
    return RateLimits(**pairs)

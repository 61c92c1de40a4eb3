"""Limits of rates, on a clock of the tests' own."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from provider_core.access.limit_store import Bucket, FailedAttempts, MemoryLimitStore
from provider_core.access.rate_limits import RateLimiter, RateTicket
from provider_core.errors import RateLimited
from provider_core.quotas import ConcurrencyLimit, RateBucket, RateLimits, RateStatus
from provider_core.stores import LimitStore, Taking
from provider_core.types import Usage
from tests.unit.access.test_keys import TestClock


@pytest.fixture
def clock() -> TestClock:
    """At the beginning."""
    return TestClock(0.0)


class Limits:
    """A limiter of the limits under test, and the requests that it lets in."""

    def __init__(
        self, clock: TestClock, store: LimitStore | None = None, **limits: int | None
    ) -> None:
        self.limiter = RateLimiter(RateLimits(**limits), store, clock)
        self._num_requests = 0

    def ticket(self, key_id: str = "key") -> RateTicket:
        """Of a key with the default limits."""
        self._num_requests += 1
        ticket = self.limiter.open(f"req-{self._num_requests}", key_id, RateLimits())
        assert ticket is not None
        return ticket

    async def enter(self, key_id: str = "key") -> RateTicket:
        """A request that is let in."""
        ticket = self.ticket(key_id)
        await self.limiter.enter(ticket)
        return ticket

    async def admit(self, num_prompt_tokens: int, max_tokens: int) -> RateTicket:
        """One that is let in to the end."""
        ticket = await self.enter()
        await self.limiter.admit(ticket, num_prompt_tokens, max_tokens)
        return ticket

    async def tokens_left(self) -> int:
        """As another request sees it."""
        return self.limiter.status(await self.enter())["tokens"].remaining


async def test_at_the_limit_one_more_waits_for_exactly_one_slot(clock: TestClock) -> None:
    """Limit, limit + 1, and again when it is said that it will work, to the millisecond."""
    limits = Limits(clock, requests_per_minute=60)
    for _ in range(60):
        await limits.enter()
    with pytest.raises(RateLimited, match="60 requests per minute") as failure:
        await limits.enter()
    assert (failure.value.code, failure.value.retry_after_s) == ("requests_per_minute", 1.0)
    clock.now_s = 0.999
    with pytest.raises(RateLimited):
        await limits.enter()
    clock.now_s = 1.0
    await limits.enter()


@pytest.mark.parametrize("limit", [1, 5, 60])
async def test_a_minute_lets_almost_two_in(clock: TestClock, limit: int) -> None:
    """2N-1, as docs/limits.md says: what the bucket held, and what flows in until it is over."""
    limits = Limits(clock, requests_per_minute=limit)
    num_let_in = 0
    while clock.now_s < 60:
        try:
            await limits.enter()
        except RateLimited as refused:
            clock.now_s = round(clock.now_s + (refused.retry_after_s or 0), 6)
        else:
            num_let_in += 1
    assert num_let_in == 2 * limit - 1


async def test_status_is_the_time_until_full(clock: TestClock) -> None:
    """As clients of OpenAI know it: after one of 60 a minute, one second."""
    limits = Limits(clock, requests_per_minute=60, tokens_per_minute=600)
    ticket = await limits.enter()
    assert limits.limiter.status(ticket) == {
        "requests": RateStatus(60, 59, 1.0),
        "tokens": RateStatus(600, 600, 0.0),
    }
    clock.now_s = 0.5
    assert limits.limiter.status(ticket)["requests"] == RateStatus(60, 59, 0.5)
    clock.now_s = 1.0
    assert limits.limiter.status(ticket)["requests"] == RateStatus(60, 60, 0.0)


async def test_the_limit_that_is_reached_first_is_shown(clock: TestClock) -> None:
    """A day's, if it is lower by now."""
    limits = Limits(clock, requests_per_minute=60, requests_per_day=2)
    assert limits.limiter.status(await limits.enter())["requests"].limit == 2
    await limits.enter()
    with pytest.raises(RateLimited, match="2 requests per day") as failure:
        await limits.enter()
    assert (failure.value.code, failure.value.retry_after_s) == ("requests_per_day", 43200)


async def test_a_refused_request_takes_nothing(clock: TestClock) -> None:
    """Of no limit, whichever refused it."""
    limits = Limits(clock, requests_per_minute=1, requests_per_day=10)
    await limits.enter()
    for _ in range(5):
        with pytest.raises(RateLimited, match="per minute"):
            await limits.enter()
    for _ in range(9):  # what is left of the day
        clock.now_s += 60
        await limits.enter()


async def test_keys_do_not_share_a_limit(clock: TestClock) -> None:
    """One that is used up stops nobody else."""
    limits = Limits(clock, requests_per_minute=1)
    await limits.enter("one")
    await limits.enter("two")
    with pytest.raises(RateLimited):
        await limits.enter("one")


async def test_limits_of_a_key_win_one_by_one(clock: TestClock) -> None:
    """What the key leaves open is as in the settings."""
    limiter = RateLimiter(RateLimits(requests_per_minute=1, tokens_per_minute=100), clock=clock)
    ticket = limiter.open("req-1", "key", RateLimits(requests_per_minute=5))
    assert ticket is not None
    status = limiter.status(ticket)
    assert (status["requests"].limit, status["tokens"].limit) == (5, 100)


def test_a_key_without_limits_costs_nothing(clock: TestClock) -> None:
    """It gets no ticket, and its answers no headers."""
    assert RateLimiter(RateLimits(), clock=clock).open("req-1", "key", RateLimits()) is None


async def test_limits_of_a_model_hold_beside_those_of_the_key(clock: TestClock) -> None:
    """For each key by itself."""
    limits = Limits(clock, requests_per_minute=10)
    limiter, of_model = limits.limiter, RateLimits(requests_per_minute=1)
    for key_id in ("one", "two"):
        ticket = await limits.enter(key_id)
        assert limiter.at_model(ticket, "req", key_id, "model", of_model) is ticket
        await limiter.admit(ticket, 1, 1)
        assert limiter.status(ticket)["requests"].limit == 1
    again = await limits.enter("one")
    limiter.at_model(again, "req", "one", "model", of_model)
    with pytest.raises(RateLimited, match="1 requests"):
        await limiter.admit(again, 1, 1)
    assert limiter.at_model(None, "req", "one", "other", RateLimits()) is None
    assert limiter.at_model(None, "req", "one", "other", of_model) is not None


async def test_an_attempt_at_another_model_gives_back_what_the_first_took(
    clock: TestClock,
) -> None:
    """Its requests, its tokens and its place; and a limit that refused does not refuse again."""
    limits = Limits(clock, tokens_per_minute=100)
    limiter, strict = limits.limiter, RateLimits(requests_per_minute=1, concurrent_requests=1)
    for _ in range(2):
        ticket = await limits.enter()
        limiter.at_model(ticket, "req", "key", "first", strict)
        await limiter.admit(ticket, 60, 0)
        limiter.at_model(ticket, "req", "key", "second", RateLimits())
        await limiter.admit(ticket, 60, 0)
        limiter.leave(ticket, None)
    used_up = await limits.enter()
    limiter.at_model(used_up, "req", "key", "first", strict)
    await limiter.admit(used_up, 1, 0)
    refused = await limits.enter()
    limiter.at_model(refused, "req", "key", "first", strict)
    with pytest.raises(RateLimited):
        await limiter.admit(refused, 1, 0)
    limiter.at_model(refused, "req", "key", "second", RateLimits())
    await limiter.admit(refused, 1, 0)


async def test_concurrency_is_released_once(clock: TestClock) -> None:
    """However often a request is said to be over."""
    limits = Limits(clock, concurrent_requests=2)
    first, second = await limits.enter(), await limits.enter()
    with pytest.raises(RateLimited, match="2 requests at the same time") as failure:
        await limits.enter()
    assert failure.value.code == "concurrency_limit"
    for _ in range(3):
        limits.limiter.leave(first, None)
    third = await limits.enter()
    with pytest.raises(RateLimited):
        await limits.enter()
    for ticket in (second, third):
        limits.limiter.leave(ticket, None)
    await limits.enter()


async def test_a_refused_request_frees_no_place(clock: TestClock) -> None:
    """It never had one."""
    limits = Limits(clock, concurrent_requests=1)
    await limits.enter()
    for _ in range(3):
        refused = limits.ticket()
        with pytest.raises(RateLimited):
            await limits.limiter.enter(refused)
        limits.limiter.leave(refused, None)


async def test_tokens_are_corrected_when_a_request_has_ended(clock: TestClock) -> None:
    """From what was expected to what was used."""
    limits = Limits(clock, tokens_per_minute=6000)
    ticket = await limits.admit(100, 1000)
    assert limits.limiter.status(ticket)["tokens"].remaining == 6000 - 100 - 256
    for _ in range(2):
        limits.limiter.leave(ticket, Usage(prompt_tokens=100, completion_tokens=10))
        assert await limits.tokens_left() == 6000 - 110


async def test_a_request_that_did_not_run_gives_its_tokens_back(clock: TestClock) -> None:
    """And one that is tried again with another model takes them once."""
    limits = Limits(clock, tokens_per_minute=6000)
    ticket = await limits.admit(100, 50)
    limits.limiter.at_model(ticket, "req", "key", "other", RateLimits())
    await limits.limiter.admit(ticket, 100, 50)
    assert await limits.tokens_left() == 5850
    limits.limiter.leave(ticket, None)
    assert await limits.tokens_left() == 6000


async def test_short_replies_are_expected_of_a_key_that_has_had_them(clock: TestClock) -> None:
    """So its requests are let in as long as they really fit."""
    limits = Limits(clock, tokens_per_minute=10**6)
    for _ in range(60):
        ticket = await limits.admit(10, 4096)
        limits.limiter.leave(ticket, Usage(prompt_tokens=10, completion_tokens=10))
    ticket = await limits.admit(10, 4096)
    assert ticket.num_tokens is not None
    assert 20 <= ticket.num_tokens < 21


async def test_a_prompt_of_more_than_a_whole_bucket_is_refused_for_good(clock: TestClock) -> None:
    """Four tokens a minute let no prompt of five in, however long it waits."""
    limits = Limits(clock, tokens_per_minute=4)
    with pytest.raises(RateLimited, match="prompt has 5 tokens, more than the limit of 4") as over:
        await limits.admit(5, 1)
    assert (over.value.code, over.value.retry_after_s) == ("prompt_over_rate_limit", None)
    assert await limits.tokens_left() == 4


async def test_a_reply_of_more_than_a_whole_bucket_is_paid_later(clock: TestClock) -> None:
    """How long it would become was not known."""
    limits = Limits(clock, tokens_per_minute=60)
    ticket = await limits.admit(60, 1000)
    limits.limiter.leave(ticket, Usage(prompt_tokens=60, completion_tokens=60))
    with pytest.raises(RateLimited, match="60 tokens per minute") as failure:
        await limits.admit(1, 0)
    assert (failure.value.code, failure.value.retry_after_s) == ("tokens_per_minute", 61)
    assert limits.limiter.status(await limits.enter())["tokens"] == RateStatus(60, 0, 120)


async def test_a_repeated_answer_is_not_counted(clock: TestClock) -> None:
    """It has cost nothing."""
    limits = Limits(clock, requests_per_minute=5)
    ticket = await limits.enter()
    limits.limiter.forgive(ticket)
    assert limits.limiter.status(ticket)["requests"].remaining == 5


class BrokenStore(MemoryLimitStore):
    """Shared by several limiters, as long as it works."""

    def __init__(self, clock: TestClock) -> None:
        super().__init__(clock)
        self.is_broken = False
        self.num_asked = 0

    async def take(
        self,
        request_id: str,
        amounts: Sequence[tuple[RateBucket, float]],
        concurrency: Sequence[ConcurrencyLimit] = (),
    ) -> Taking:
        """Count, or raise."""
        self.num_asked += 1
        if self.is_broken:
            raise OSError("gone")
        return await super().take(request_id, amounts, concurrency)


async def test_replicas_share_a_limit(clock: TestClock) -> None:
    """Two limiters of one store let in as many as one."""
    store = BrokenStore(clock)
    replicas = [Limits(clock, store, requests_per_minute=3) for _ in range(2)]
    for i in range(3):
        await replicas[i % 2].enter()
    for replica in replicas:
        with pytest.raises(RateLimited):
            await replica.enter()


async def test_while_the_store_fails_each_server_counts_by_itself(clock: TestClock) -> None:
    """Rates are open; the store is asked once a second, and counts again when it answers."""
    store = BrokenStore(clock)
    limits = Limits(clock, store, requests_per_minute=60, concurrent_requests=2)
    before = await limits.enter()
    assert limits.limiter.is_sharing
    store.is_broken = True
    with capture_logs() as logs:
        broken = await limits.enter()
        await limits.enter()
        with pytest.raises(RateLimited, match="2 requests at the same time"):
            await limits.enter()
        assert (store.num_asked, limits.limiter.is_sharing) == (2, False)
        clock.now_s = 1.0
        limits.limiter.leave(broken, None)
        await limits.enter()
        assert store.num_asked == 3
        store.is_broken = False
        clock.now_s = 2.0
        await limits.enter()
    assert [line["event"] for line in logs] == ["limits.unshared", "limits.shared"]
    assert limits.limiter.is_sharing
    limits.limiter.leave(before, None)
    await limits.enter()


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 100), st.integers(1, 2000)), max_size=50),
)
def test_a_bucket_never_gives_more_than_flows_in(
    capacity: int, requests: list[tuple[float, int]]
) -> None:
    """A whole one at first, and then its rate; what is refused works after the said time."""
    bucket = Bucket(RateBucket("any", capacity, 60.0), 0.0)
    now_s, taken = 0.0, 0
    for pause_s, amount in requests:
        now_s += pause_s
        wait_s = bucket.wait_s(amount, now_s)
        if wait_s:
            now_s += wait_s
            assert bucket.wait_s(amount, now_s) <= 1e-6
        bucket.take(amount, now_s)
        taken += amount
        assert taken <= capacity + now_s * capacity / 60 + max(amount - capacity, 0) + 1e-3
        assert bucket.level(now_s) <= capacity


def test_wrong_keys_are_limited_by_address() -> None:
    """A15: whoever guesses waits, others do not."""
    failures = FailedAttempts(3)
    for _ in range(3):
        failures.count("192.0.2.1", 0.0)
    with pytest.raises(RateLimited) as refused:
        failures.count("192.0.2.1", 0.0)
    assert refused.value.retry_after_s == pytest.approx(20)
    failures.count("192.0.2.2", 0.0)
    failures.count("192.0.2.1", 20.0)

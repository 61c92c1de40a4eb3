"""Limits of rates, on a clock of the tests' own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.access.rate_limits import (
    Bucket,
    FailedAttempts,
    RateLimiter,
    RateStatus,
    RateTicket,
)
from provider_core.errors import RateLimited
from provider_core.quotas import RateLimits
from provider_core.types import Usage


def ticket_of(limiter: RateLimiter, now_s: float = 0.0, key_id: str = "key") -> RateTicket:
    """A ticket of a key with the default limits."""
    ticket = limiter.open(key_id, RateLimits(), now_s)
    assert ticket is not None
    return ticket


def enter(limiter: RateLimiter, now_s: float = 0.0, key_id: str = "key") -> RateTicket:
    """A request that is let in."""
    ticket = ticket_of(limiter, now_s, key_id)
    limiter.enter(ticket, now_s)
    return ticket


def test_at_the_limit_one_more_waits_for_exactly_one_slot() -> None:
    """Limit, limit + 1, and again when it is said that it will work, to the millisecond."""
    limiter = RateLimiter(RateLimits(requests_per_minute=60))
    for _ in range(60):
        enter(limiter)
    with pytest.raises(RateLimited, match="60 requests per minute") as failure:
        enter(limiter)
    assert (failure.value.code, failure.value.retry_after_s) == ("requests_per_minute", 1.0)
    with pytest.raises(RateLimited):
        enter(limiter, 0.999)
    enter(limiter, 1.0)


def test_status_is_the_time_until_full() -> None:
    """As clients of OpenAI know it: after one of 60 a minute, one second."""
    limiter = RateLimiter(RateLimits(requests_per_minute=60, tokens_per_minute=600))
    ticket = enter(limiter)
    assert limiter.status(ticket, 0.0) == {
        "requests": RateStatus(60, 59, 1.0),
        "tokens": RateStatus(600, 600, 0.0),
    }
    assert limiter.status(ticket, 0.5)["requests"] == RateStatus(60, 59, 0.5)
    assert limiter.status(ticket, 1.0)["requests"] == RateStatus(60, 60, 0.0)


def test_the_limit_that_is_reached_first_is_shown() -> None:
    """A day's, if it is lower by now."""
    limiter = RateLimiter(RateLimits(requests_per_minute=60, requests_per_day=2))
    assert limiter.status(enter(limiter), 0.0)["requests"].limit == 2
    enter(limiter)
    with pytest.raises(RateLimited, match="2 requests per day") as failure:
        enter(limiter)
    assert (failure.value.code, failure.value.retry_after_s) == ("requests_per_day", 43200)


def test_a_refused_request_takes_nothing() -> None:
    """Of no limit, whichever refused it."""
    limiter = RateLimiter(RateLimits(requests_per_minute=1, requests_per_day=10))
    ticket = enter(limiter)
    for _ in range(5):
        with pytest.raises(RateLimited, match="per minute"):
            enter(limiter)
    assert [limit.bucket.status(0.0).remaining for limit in ticket.limits("requests")] == [0, 9]


def test_keys_do_not_share_a_limit() -> None:
    """One that is used up stops nobody else."""
    limiter = RateLimiter(RateLimits(requests_per_minute=1))
    enter(limiter, key_id="one")
    enter(limiter, key_id="two")
    with pytest.raises(RateLimited):
        enter(limiter, key_id="one")


def test_limits_of_a_key_win_one_by_one() -> None:
    """What the key leaves open is as in the settings."""
    limiter = RateLimiter(RateLimits(requests_per_minute=1, tokens_per_minute=100))
    ticket = limiter.open("key", RateLimits(requests_per_minute=5), 0.0)
    assert ticket is not None
    status = limiter.status(ticket, 0.0)
    assert (status["requests"].limit, status["tokens"].limit) == (5, 100)


def test_a_key_without_limits_costs_nothing() -> None:
    """It gets no ticket, and its answers no headers."""
    assert RateLimiter(RateLimits()).open("key", RateLimits(), 0.0) is None


def test_limits_of_a_model_hold_beside_those_of_the_key() -> None:
    """For each key by itself."""
    limiter = RateLimiter(RateLimits(requests_per_minute=10))
    of_model = RateLimits(requests_per_minute=1)
    for key_id in ("one", "two"):
        ticket = enter(limiter, key_id=key_id)
        assert limiter.at_model(ticket, key_id, "model", of_model, 0.0) is ticket
        limiter.enter(ticket, 0.0)
        assert limiter.status(ticket, 0.0)["requests"].limit == 1
    again = enter(limiter, key_id="one")
    limiter.at_model(again, "one", "model", of_model, 0.0)
    with pytest.raises(RateLimited, match="1 requests"):
        limiter.enter(again, 0.0)
    assert limiter.at_model(None, "one", "other", RateLimits(), 0.0) is None
    assert limiter.at_model(None, "one", "other", of_model, 0.0) is not None


def test_concurrency_is_released_once() -> None:
    """However often a request is said to be over."""
    limiter = RateLimiter(RateLimits(concurrent_requests=2))
    first, second = enter(limiter), enter(limiter)
    with pytest.raises(RateLimited, match="2 requests at the same time") as failure:
        enter(limiter)
    assert failure.value.code == "concurrency_limit"
    for _ in range(3):
        limiter.leave(first, None, 0.0)
    third = enter(limiter)
    with pytest.raises(RateLimited):
        enter(limiter)
    for ticket in (second, third):
        limiter.leave(ticket, None, 0.0)
    enter(limiter)


def test_tokens_are_corrected_when_a_request_has_ended() -> None:
    """From what was expected to what was used."""
    limiter = RateLimiter(RateLimits(tokens_per_minute=6000))
    ticket = enter(limiter)
    limiter.take_tokens(ticket, 100, 1000, 0.0)
    assert limiter.status(ticket, 0.0)["tokens"].remaining == 6000 - 100 - 256
    limiter.leave(ticket, Usage(prompt_tokens=100, completion_tokens=10), 0.0)
    assert limiter.status(ticket, 0.0)["tokens"].remaining == 6000 - 110
    limiter.leave(ticket, Usage(prompt_tokens=100, completion_tokens=10), 0.0)
    assert limiter.status(ticket, 0.0)["tokens"].remaining == 6000 - 110


def test_a_request_that_did_not_run_gives_its_tokens_back() -> None:
    """And one that is tried again with another model takes them once."""
    limiter = RateLimiter(RateLimits(tokens_per_minute=6000))
    ticket = enter(limiter)
    limiter.take_tokens(ticket, 100, 50, 0.0)
    limiter.take_tokens(ticket, 100, 50, 0.0)
    assert limiter.status(ticket, 0.0)["tokens"].remaining == 5850
    limiter.leave(ticket, None, 0.0)
    assert limiter.status(ticket, 0.0)["tokens"].remaining == 6000


def test_short_replies_are_expected_of_a_key_that_has_had_them() -> None:
    """So its requests are let in as long as they really fit."""
    limiter = RateLimiter(RateLimits(tokens_per_minute=10**6))
    for _ in range(60):
        ticket = enter(limiter)
        limiter.take_tokens(ticket, 10, 4096, 0.0)
        limiter.leave(ticket, Usage(prompt_tokens=10, completion_tokens=10), 0.0)
    ticket = enter(limiter)
    limiter.take_tokens(ticket, 10, 4096, 0.0)
    assert 20 <= ticket.num_tokens < 21


def test_more_than_a_whole_bucket_is_let_in_when_it_is_full_and_paid_later() -> None:
    """Or a long prompt could never be sent."""
    limiter = RateLimiter(RateLimits(tokens_per_minute=60))
    ticket = enter(limiter)
    limiter.take_tokens(ticket, 120, 0, 0.0)
    limiter.leave(ticket, Usage(prompt_tokens=120), 0.0)
    other = enter(limiter)
    with pytest.raises(RateLimited, match="60 tokens per minute") as failure:
        limiter.take_tokens(other, 1, 0, 0.0)
    assert (failure.value.code, failure.value.retry_after_s) == ("tokens_per_minute", 61)
    assert limiter.status(other, 0.0)["tokens"] == RateStatus(60, 0, 120)


def test_a_repeated_answer_is_not_counted() -> None:
    """It has cost nothing."""
    limiter = RateLimiter(RateLimits(requests_per_minute=5))
    ticket = enter(limiter)
    limiter.forgive(ticket, 0.0)
    assert limiter.status(ticket, 0.0)["requests"].remaining == 5


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 100), st.integers(1, 2000)), max_size=50),
)
def test_a_bucket_never_gives_more_than_flows_in(
    capacity: int, requests: list[tuple[float, int]]
) -> None:
    """A whole one at first, and then its rate; what is refused works after the said time."""
    bucket = Bucket(capacity, 60, 0.0)
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

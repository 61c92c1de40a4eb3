"""Definitions of the figures, on replies with known times."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.errors import ConfigurationError
from provider_core.loadtest.replies import Reply
from provider_core.loadtest.summary import (
    PERCENTILES,
    Distribution,
    Slo,
    inter_token_latencies,
    summarise,
    time_per_output_token,
)


def reply(*arrivals_s: float, sent_s: float = 0.0, ended_s: float = 0.0, **fields: object) -> Reply:
    """A whole answer with text at these times."""
    made = Reply(sent_s=sent_s, arrivals_s=[*arrivals_s], is_finished=True)
    made.ended_s = ended_s or max(arrivals_s, default=sent_s)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_latencies_of_one_token_an_event() -> None:
    """The plain case: every definition of the field agrees."""
    one = reply(1.5, 1.75, 2.25, sent_s=1.0)

    assert one.ttft_s == 0.5
    assert inter_token_latencies([one]).curve[::100] == (0.25, 0.5)
    assert time_per_output_token(one) == 0.375


def test_tokens_of_one_event_are_no_time_apart() -> None:
    """Seven tokens in three events: six gaps, and their sum is the time from first to last."""
    one = reply(1.0, 2.0, 4.0, output_tokens=7)

    gaps = inter_token_latencies([one])

    assert (gaps.count, gaps.curve[60], gaps.curve[80], gaps.curve[100]) == (6, 0.0, 1.0, 2.0)
    assert gaps.mean == time_per_output_token(one)


def test_a_count_of_tokens_takes_no_memory() -> None:
    """Whatever a server claims came with one event."""
    gaps = inter_token_latencies([reply(1.0, 3.0, output_tokens=10**15)])

    assert (gaps.count, gaps.p99, gaps.curve[100]) == (10**15 - 1, 0.0, 2.0)


def test_a_single_token_has_no_gap() -> None:
    """And no mean of gaps."""
    summary = summarise([reply(1.0)])

    assert (summary.itl.count, summary.tpot.count, summary.ttft.count) == (0, 0, 1)


@given(st.lists(st.floats(0, 1e3), max_size=60), st.integers(0, 30))
def test_percentiles_are_numpys(samples: list[float], num_zeros: int) -> None:
    """Interpolated linearly, as the field's tools do."""
    found = Distribution.of(samples, num_zeros=num_zeros)
    everything = [*samples, *[0.0] * num_zeros] or [0.0]

    assert math.isclose(found.mean, np.mean(everything), abs_tol=1e-12)
    for percentile in PERCENTILES:
        expected = float(np.percentile(everything, percentile))
        assert math.isclose(getattr(found, f"p{percentile}"), expected, abs_tol=1e-12)
    assert found.curve == tuple(sorted(found.curve))


def test_throughput_is_over_the_time_from_first_request_to_last_answer() -> None:
    """Of whole answers only; the failed one's time counts all the same."""
    failed = reply(sent_s=2.0, ended_s=9.0, error="http_429", detail="slow down")
    answers = [
        reply(2.0, 3.0, sent_s=1.0, prompt_tokens=10, output_tokens=4, cached_tokens=6),
        reply(4.0, sent_s=3.0, ended_s=5.0, prompt_tokens=20, output_tokens=12),
        failed,
    ]
    summary = summarise(answers)

    assert summary.wall_s == 8.0
    assert summary.output_tokens_per_s == 2.0
    assert summary.prompt_tokens_per_s == 30 / 8
    assert summary.requests_per_s == 0.25
    assert summary.cached_tokens == 6
    assert (summary.num_requests, summary.num_ok) == (3, 2)
    assert (summary.errors, summary.error_details) == ({"http_429": 1}, {"http_429": "slow down"})


def test_an_answer_without_output_is_a_failure() -> None:
    """It has no time to first token."""
    assert summarise([reply(ended_s=1.0)]).errors == {"no_output": 1}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((), "nothing"), ((3, 4), "usage"), ((None, None), "events"), ((3, None), "both")],
)
def test_it_is_said_who_counted(counts: tuple[int | None, ...], expected: str) -> None:
    """A count of events is no count of tokens."""
    replies = [reply(1.0, output_tokens=count) for count in counts]

    assert summarise(replies).counted_by == expected


def test_goodput_counts_answers_within_every_limit() -> None:
    """Too late, too halting and broken answers are not good."""
    answers = [
        reply(0.1, 0.2, ended_s=2.0),
        reply(0.6, 0.7),
        reply(0.1, 0.9),
        reply(0.1, 0.2, error="timeout"),
    ]
    summary = summarise(answers, Slo.parse("ttft=500ms,itl=0.3s"))

    assert summary.goodput_per_s == 0.5


@pytest.mark.parametrize(
    ("missed", "met"),
    [
        ("ttft=99ms", "ttft=101ms"),
        ("itl=199ms", "itl=201ms"),
        ("tpot=199ms", "tpot=201ms"),
        ("e2e=0.39s", "e2e=0.41s"),
    ],
)
def test_each_limit_alone_can_fail_an_answer(missed: str, met: str) -> None:
    """And one that is a little wider does not."""
    one = reply(0.1, 0.3, ended_s=0.4)

    assert not Slo.parse(missed).is_met(one)
    assert Slo.parse(met).is_met(one)


@pytest.mark.parametrize("text", ["", "ttft", "ttft=5", "speed=1s", "ttft=-1s", "ttft=1s,"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    """By name."""
    with pytest.raises(ConfigurationError, match="is not a limit such as"):
        Slo.parse(text)


def test_no_replies_are_no_figures() -> None:
    """An interrupt may come before the first answer."""
    summary = summarise([], Slo(ttft=1.0))

    assert (summary.wall_s, summary.output_tokens_per_s, summary.goodput_per_s) == (0, 0, None)


def test_a_rate_is_kept_up_over_all_of_its_time() -> None:
    """Also before the first request, and after the last answer when nothing more came."""
    summary = summarise([reply(3.0, sent_s=2.0, ended_s=4.0)], sending=(1.0, 11.0))

    assert (summary.wall_s, summary.requests_per_s, summary.offered_per_s) == (10.0, 0.1, 0.1)


def test_answers_after_the_last_request_take_their_time() -> None:
    """What was offered is not what was served."""
    summary = summarise([reply(3.0, sent_s=2.0, ended_s=21.0)], sending=(1.0, 11.0))

    assert (summary.wall_s, summary.requests_per_s, summary.offered_per_s) == (20.0, 0.05, 0.1)


def test_a_rate_may_bring_nobody() -> None:
    """In a short time; a closed loop offers at no rate."""
    nobody = summarise([], sending=(1.0, 11.0))

    assert (nobody.wall_s, nobody.offered_per_s) == (10.0, 0.0)
    assert summarise([]).offered_per_s is None

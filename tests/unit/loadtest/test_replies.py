"""What events count as text, and whose token count stands."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from provider_core.loadtest.replies import DONE, MAX_TOKENS, Reply


def reply_of(*events: object) -> Reply:
    """A reply that took events at 1 s, 2 s, ..."""
    reply = Reply()
    for number, event in enumerate(events, 1):
        payload = event if isinstance(event, bytes) else json.dumps(event).encode()
        reply.take(payload, float(number))
    return reply


def delta(**fields: object) -> dict[str, object]:
    """A chunk of a chat."""
    return {"choices": [{"index": 0, "delta": fields}]}


@pytest.mark.parametrize(
    "event",
    [
        delta(content="a"),
        delta(reasoning_content="a"),
        delta(reasoning="a"),
        delta(tool_calls=[{"index": 0}]),
        {"choices": [{"text": "a"}]},
        {"choices": [{"text": "a", "finish_reason": "length"}]},
        {"content": "a", "stop": False},
    ],
)
def test_output_of_any_kind_counts(event: dict[str, object]) -> None:
    """Of a chat, of its reasoning and calls, of a completion, of llama-server's own endpoint."""
    assert reply_of(event).arrivals_s == [1.0]


@pytest.mark.parametrize(
    "event",
    [
        delta(content=""),
        {"choices": [{"text": "", "finish_reason": None}]},
        {"content": "", "stop": False},
    ],
)
def test_a_token_without_text_counts(event: dict[str, object]) -> None:
    """Half of a character, or a special token, took a step of the model like any other."""
    assert reply_of(event).arrivals_s == [1.0]


@pytest.mark.parametrize(
    "event",
    [
        delta(role="assistant", content=""),
        delta(content=None),
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [{"delta": {"content": ""}, "finish_reason": "stop"}]},
        {"choices": [{"text": "", "finish_reason": "stop"}]},
        {"choices": [], "usage": None},
        {"content": "", "stop": True},
    ],
)
def test_events_without_output_are_no_tokens(event: dict[str, object]) -> None:
    """The first event of a chat only says who speaks, the last ones how it ended."""
    assert reply_of(event).arrivals_s == []


def test_the_servers_count_stands_above_the_events() -> None:
    """One event may hold several tokens."""
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    reply = reply_of(delta(content="ab"), delta(content="c"), {"choices": [], "usage": usage}, DONE)

    assert (reply.num_tokens, reply.prompt_tokens, reply.cached_tokens) == (5, 7, 4)
    assert (reply.arrivals_s, reply.ended_s, reply.is_finished) == ([1.0, 2.0], 4.0, True)


def test_without_a_count_events_are_counted() -> None:
    """And the reply says so."""
    reply = reply_of(delta(content="a"), delta(content="b"), DONE)

    assert (reply.num_tokens, reply.output_tokens) == (2, None)


def test_the_last_event_of_llama_server_ends_and_counts() -> None:
    """Its own endpoint has neither usage nor terminator."""
    last = {"content": "", "stop": True, "tokens_predicted": 3, "tokens_evaluated": 9}
    reply = reply_of({"content": "abc", "stop": False}, last)

    assert (reply.num_tokens, reply.prompt_tokens, reply.ended_s) == (3, 9, 2.0)
    assert reply.is_finished


def test_an_error_in_the_stream_is_a_failure_in_the_servers_words() -> None:
    """The headers said 200 long ago."""
    reply = reply_of(delta(content="a"), {"error": {"message": "step failed"}})

    assert (reply.error, reply.detail) == ("error_event", "step failed")


@pytest.mark.parametrize("count", ["5", 5.5, -1, [5], True, MAX_TOKENS + 1, 1e300])
@pytest.mark.parametrize(
    "event",
    [
        lambda count: {"usage": {"completion_tokens": count}},
        lambda count: {"usage": {"prompt_tokens": count}},
        lambda count: {"usage": {"prompt_tokens_details": {"cached_tokens": count}}},
        lambda count: {"stop": True, "tokens_predicted": count},
        lambda count: {"stop": True, "tokens_predicted": 1, "tokens_evaluated": count},
    ],
)
def test_a_count_that_is_none_is_a_failure(event: Callable[[Any], object], count: object) -> None:
    """Nothing can be computed with it; the other answers' figures stand."""
    assert reply_of(delta(content="a"), event(count), DONE).error == "bad_event"


def test_a_count_may_have_a_decimal_point() -> None:
    """Some gateways write every number so."""
    reply = reply_of(delta(content="ab"), {"usage": {"completion_tokens": 8.0}}, DONE)

    assert (reply.error, reply.num_tokens, type(reply.num_tokens)) == (None, 8, int)


@pytest.mark.parametrize(
    "payload", [b"{", b"[1]", b"null", b'{"choices":[null]}', b'{"usage":[1]}']
)
def test_an_event_that_of_no_known_shape_is_a_failure(payload: bytes) -> None:
    """Nothing is counted that was not understood."""
    assert reply_of(payload).error == "bad_event"


def test_the_first_failure_stands() -> None:
    """Later ones follow from it."""
    reply = Reply()
    reply.fail("timeout")
    reply.fail("connection_lost")

    assert reply.error == "timeout"

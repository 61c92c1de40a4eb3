"""Prompts and lengths are as planned, and the same for the same seed."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from provider_core.errors import ConfigurationError
from provider_core.loadtest.workload import WORDS, Length, Request, Workload, read_trace

PLAIN = Workload(prompt_tokens=Length(128), output_tokens=Length(64))


def drawn(workload: Workload, num_requests: int, seed: tuple[int, ...]) -> list[Request]:
    """The first of a round."""
    return list(islice(workload.draw(seed), num_requests))


@pytest.mark.parametrize("text", ["128±32", "128+-32", "128~32", " 128±32 "])
def test_a_length_may_spread(text: str) -> None:
    """Three ways to write it."""
    assert Length.parse(text) == Length(128, 32)


@pytest.mark.parametrize("text", ["", "x", "0", "-3", "10±10", "1.5", "100000000000", "9" * 5000])
def test_what_is_no_length_is_refused(text: str) -> None:
    """Nor may one reach below a token, or beyond what can be made."""
    with pytest.raises(ConfigurationError):
        Length.parse(text)


def test_lengths_spread_evenly_over_their_range() -> None:
    """Both ends are reached, none is left."""
    random = np.random.default_rng(1)
    drawn = [Length(8, 2).draw(random) for _ in range(500)]

    assert sorted(set(drawn)) == [6, 7, 8, 9, 10]
    assert Length(8).draw(random) == 8


def test_prompts_have_the_planned_ids() -> None:
    """As many as asked for, from the range, all different."""
    requests = drawn(PLAIN, 20, (1, 0, 0))

    assert {len(request.prompt) for request in requests} == {128}
    assert {request.max_tokens for request in requests} == {64}
    assert all(100 <= int(id_) < 2000 for request in requests for id_ in request.prompt)
    assert len({tuple(request.prompt) for request in requests}) == 20


def test_a_seed_gives_the_same_requests_again() -> None:
    """And another one others."""
    assert drawn(PLAIN, 3, (1, 2, 3)) == drawn(PLAIN, 3, (1, 2, 3))
    assert drawn(PLAIN, 3, (1, 2, 3)) != drawn(PLAIN, 3, (1, 2, 4))


def test_a_shared_prefix_is_shared_over_the_whole_run() -> None:
    """Between requests, points and rounds; what follows is not."""
    workload = Workload(
        prompt_tokens=Length(64, 8), output_tokens=Length(8), shared_prefix_tokens=40
    )
    requests = [*drawn(workload, 4, (1, 0, 0)), *drawn(workload, 4, (1, 5, 2))]

    assert len({tuple(request.prompt[:40]) for request in requests}) == 1
    assert len({tuple(request.prompt[40:56]) for request in requests}) == 8
    assert {request.num_shared_tokens for request in requests} == {40}
    assert all(56 <= len(request.prompt) <= 72 for request in requests)


def test_a_prefix_leaves_room_for_an_own_token() -> None:
    """Equal prompts would measure the cache alone."""
    with pytest.raises(ConfigurationError, match="shared ones"):
        Workload(prompt_tokens=Length(40), output_tokens=Length(1), shared_prefix_tokens=40)


def test_text_has_as_many_words() -> None:
    """Which are one token each in most vocabularies."""
    workload = Workload(prompt_tokens=Length(30), output_tokens=Length(8), kind="text")
    (request,) = drawn(workload, 1, (0,))

    assert isinstance(request.prompt, str)
    assert len(request.prompt.split()) == 30
    assert set(request.prompt.split()) <= set(WORDS)
    assert request.messages == [{"role": "user", "content": request.prompt}]


def write(tmp_path: Path, *lines: object) -> Path:
    """A trace file."""
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n\n")
    return path


def test_a_trace_is_replayed_in_the_order_of_its_times(tmp_path: Path) -> None:
    """The earliest request starts the clock, wherever its line stands."""
    messages = [{"role": "user", "content": "hi"}]
    path = write(
        tmp_path,
        {"timestamp": 1012.5, "prompt": "b", "max_tokens": 7},
        {"timestamp": 1010, "messages": messages, "body": {"top_p": 0.5}},
        {"timestamp": 1011, "prompt_tokens": 9},
    )
    first, second, third = read_trace(path, PLAIN, 0)

    assert [first.at_s, second.at_s, third.at_s] == [0.0, 1.0, 2.5]
    assert (first.messages, first.max_tokens, first.extra) == (messages, 64, {"top_p": 0.5})
    assert len(second.prompt) == 9
    assert (third.prompt, third.max_tokens) == ("b", 7)


def test_a_trace_without_times_serves_in_turn(tmp_path: Path) -> None:
    """As a set of prompts for a loop of clients."""
    trace = read_trace(write(tmp_path, {"prompt": [1]}, {"prompt": [2]}), PLAIN, 0)
    workload = Workload(prompt_tokens=Length(1), output_tokens=Length(1), trace=trace)

    assert [request.prompt for request in drawn(workload, 3, (0,))] == [[1], [2], [1]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], "line 1"),
        ([{"prompt": "a"}, "[]"], "line 2: not a JSON object"),
        ([{"max_tokens": 3}], "neither messages, prompt nor prompt_tokens"),
        ([{"prompt": "a", "timestamp": 1}, {"prompt": "a"}], "some lines have a timestamp"),
        ([], "holds no request"),
    ],
)
def test_a_broken_trace_is_refused_with_its_line(
    tmp_path: Path, lines: list[object], message: str
) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigurationError, match=message):
        read_trace(write(tmp_path, *lines), PLAIN, 0)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("max_tokens", [0, -5, 2.7, 1e30, "7", [1], True]),
        ("prompt_tokens", [0, -3, 1e308, 100_000_000_000, "12"]),
        ("timestamp", ["12", True, [1]]),
        ("prompt", [5, {"a": 1}, [], ["a"], [1.5], [-1], [True]]),
        ("messages", [[], "hello", [1], {"role": "user", "content": "x"}]),
        ("body", ["str", [1]]),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused_by_name(
    tmp_path: Path, field: str, values: list[object]
) -> None:
    """It is neither cut, nor replaced, nor sent."""
    for value in values:
        path = write(tmp_path, {"prompt": "a"}, {"messages": [{}], field: value})
        with pytest.raises(ConfigurationError, match=rf"trace.jsonl, line 2: {field} is "):
            read_trace(path, PLAIN, 0)


def test_a_null_field_is_left_out(tmp_path: Path) -> None:
    """As writers of tables have it; a count may have a decimal point."""
    nulls = dict.fromkeys(["messages", "prompt", "max_tokens", "timestamp", "body"])
    (request,) = read_trace(write(tmp_path, {**nulls, "prompt_tokens": 9.0}), PLAIN, 0)

    assert (len(request.prompt), request.max_tokens, request.at_s) == (9, 64, None)


def test_a_turn_may_hold_calls_and_no_text(tmp_path: Path) -> None:
    """It is sent as it is."""
    chat = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [{"id": "a"}]},
        {"role": "assistant", "content": None},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
    ]
    (request,) = read_trace(write(tmp_path, {"messages": chat}), PLAIN, 0)

    assert (request.messages, request.prompt) == (chat, "hi\n\n\n1")


def test_a_prompt_shorter_than_the_shared_start_is_refused_with_its_line(tmp_path: Path) -> None:
    """Every prompt begins with it."""
    workload = replace(PLAIN, shared_prefix_tokens=16)
    with pytest.raises(ConfigurationError, match="line 1: a prompt of 16 tokens cannot begin"):
        read_trace(write(tmp_path, {"prompt_tokens": 16}), workload, 0)


def test_a_trace_that_is_not_there_is_named(tmp_path: Path) -> None:
    """In one line."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_trace(tmp_path / "none", PLAIN, 0)

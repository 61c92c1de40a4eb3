"""The reader of streams lets good ones pass and names what is wrong with each bad one."""

from collections.abc import Callable
from typing import Any

import pytest

from provider_core.conformance.event_stream import read_stream
from provider_core.conformance.verdict import Failed
from tests.unit.conformance.made_answers import USAGE, call_chunks, chunk, chunks, events

Objects = list[dict[str, Any]]


def test_a_good_stream_is_read() -> None:
    """Its text, its end and its usage; comments are counted."""
    stream = read_stream(b": waiting\n\n" + events(chunks()))

    assert (stream.text, stream.finish_reasons, stream.usage) == ("Hello!", {0: "stop"}, USAGE)
    assert (stream.has_own_usage_chunk, stream.num_comments, stream.concerns) == (True, 1, [])


def test_calls_are_joined() -> None:
    """By their index."""
    stream = read_stream(events(call_chunks()))

    assert stream.calls[0] == [
        {"id": "call_0", "name": "get_weather", "arguments": '{"city": "Rome"}'},
        {"id": "call_1", "name": "get_time", "arguments": "{}"},
    ]


def test_windows_line_ends_are_no_fault() -> None:
    """Published clients take them."""
    assert read_stream(events(chunks()).replace(b"\n", b"\r\n")).text == "Hello!"


def test_several_choices_each_have_their_end() -> None:
    """Interleaved by their index."""
    second = [
        each | {"choices": [choice | {"index": 1} for choice in each["choices"]]}
        for each in chunks()[:4]
    ]
    stream = read_stream(events([*second, *chunks()]), num_choices=2)

    assert stream.texts == {0: "Hello!", 1: "Hello!"}


BROKEN_BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no_done": (lambda body: body.removesuffix(b"data: [DONE]\n\n"), "does not end with data: [DO"),
    "done_twice": (lambda body: body + b"data: [DONE]\n\n", "came twice"),
    "cut": (lambda body: body[:-20], "ends in mid-event"),
    "no_space": (lambda body: body.replace(b"data: ", b"data:", 1), "no space after its colon"),
    "merged": (lambda body: body.replace(b"}\n\ndata", b"}\ndata", 1), "of 2 data lines"),
    "retry": (lambda body: b"retry: 3000\n\n" + body, "event without data"),
    "named": (lambda body: b"event: x\n" + body, "streams do not have"),
    "half_json": (lambda body: body.replace(b'"m"', b'"', 1), "not one JSON object"),
    "empty": (lambda _: b"\n\n", "the stream is empty"),
    "lone_return": (lambda body: body.replace(b"Hel", b"H\rl"), "lone carriage return"),
}


@pytest.mark.parametrize("name", BROKEN_BYTES)
def test_bug_13_and_32_broken_framing_is_named(name: str) -> None:
    """What makes a published client stumble."""
    spoil, reason = BROKEN_BYTES[name]

    with pytest.raises(Failed) as caught:
        read_stream(spoil(events(chunks())))
    assert reason in caught.value.reason


def _with(objects: Objects, number: int, **fields: Any) -> Objects:
    return [each | fields if i == number else each for i, each in enumerate(objects)]


def _choice(objects: Objects, number: int, **fields: Any) -> Objects:
    choice = objects[number]["choices"][0] | fields
    return _with(objects, number, choices=[choice])


def _call(objects: Objects, number: int, **fields: Any) -> Objects:
    call = objects[number]["choices"][0]["delta"]["tool_calls"][0] | fields
    return _choice(objects, number, delta={"tool_calls": [call]})


BROKEN_CHUNKS: dict[str, tuple[Objects, str]] = {
    "bug_01_usage_twice": ([*chunks(), chunks()[-1]], "usage came twice"),
    "bug_01_wrong_sum": (_with(chunks(), 4, usage=USAGE | {"total_tokens": 9}), "not 5 + 2"),
    "bug_05_empty_reason": (_choice(chunks(), 1, finish_reason=""), "finish_reason is ''"),
    "bug_05_engine_word": (_choice(chunks(), 3, finish_reason="eos"), "finish_reason is 'eos'"),
    "bug_31_no_reason": (chunks()[:3] + chunks()[4:], "have a finish_reason, and [0] are due"),
    "after_the_end": ([*chunks()[:4], chunks()[1]], "goes on after its finish_reason"),
    "bug_20_id": (_with(chunks(), 2, id="gen-2"), "id changes in mid-stream"),
    "object": (_with(chunks(), 0, object="chat.completion"), "object is 'chat.completion'"),
    "created": (_with(chunks(), 0, created=1.5), "not an integer"),
    "role": (_choice(chunks(), 0, delta={"role": "user"}), "delta.role is 'user'"),
    "error": (_with(chunks(), 2, error={"message": "no"}), "broke off with an error"),
    "null_calls": (_choice(chunks(), 1, delta={"tool_calls": None}), "null or empty, not absent"),
    "bug_02_index_0": (_call(call_chunks(), 4, index=0), "comes again: clients join"),
    "bug_02_no_index": (_call(call_chunks(), 1, index=None), "index is None"),
    "bug_02_gap": (_call(call_chunks(), 4, index=2), "begins with index 2"),
    "bug_03_id_again": (_call(call_chunks(), 2, id="call_0"), "id comes again"),
    "bug_03_null_type": (_call(call_chunks(), 2, type=None), "type comes again"),
    "bug_03_no_type": (_call(call_chunks(), 1, type=None), "first delta has no type"),
    "bug_03_long_id": (_call(call_chunks(), 1, id="x" * 86), "id has 86 characters"),
    "bug_21_null_arguments": (_call(call_chunks(), 2, function={"arguments": None}), "without arg"),
    "details": (
        _with(chunks(), 4, usage=USAGE | {"prompt_tokens_details": {"cached_tokens": None}}),
        "cached_tokens is None",
    ),
    "bug_18_reasoning": (
        _with(chunks(), 4, usage=USAGE | {"completion_tokens_details": {"reasoning_tokens": 9}}),
        "is 9, of 2",
    ),
}


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
def test_broken_chunks_are_named(name: str) -> None:
    """Each by the rule that it breaks."""
    objects, reason = BROKEN_CHUNKS[name]

    with pytest.raises(Failed) as caught:
        read_stream(events(objects))
    assert reason in caught.value.reason


def test_what_only_strict_clients_reject_is_a_concern() -> None:
    """It breaks some and not others."""
    objects = [each | {"system_fingerprint": None} for each in chunks()]
    objects.insert(2, chunk({"role": "assistant", "content": "x"}))

    assert len(read_stream(events(objects)).concerns) == 2

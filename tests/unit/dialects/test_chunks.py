"""Streams, byte by byte: framing, order, nulls, usage, errors."""

from typing import Any

import orjson
import pytest

from provider_core.dialects.openai import (
    DONE,
    KEEPALIVE,
    ChatStreamEncoder,
    CompletionStreamEncoder,
    StreamEncoder,
)
from provider_core.errors import Overloaded, StepFailed
from provider_core.text.events import Event, Finished, PromptEcho, TextDelta
from provider_core.types import TokenLogprobs, Usage
from tests.sse_checker import CheckedStream, check_stream

USAGE = Usage(prompt_tokens=5, cached_tokens=2, completion_tokens=3, generated_tokens=4)
KINDS: dict[str, type[StreamEncoder]] = {
    "chat": ChatStreamEncoder,
    "completion": CompletionStreamEncoder,
}
STOP = Finished(0, "stop", "eos")


def make_encoder(kind: str = "chat", **options: Any) -> StreamEncoder:
    """An encoder with the arguments a test does not care for filled in."""
    return KINDS[kind](
        **{"generation_id": "gen-1", "created": 7, "model": "a/b", "fingerprint": "fp", **options}
    )


def stream(kind: Any, events: list[Event], **options: Any) -> CheckedStream:
    """Encode a whole stream that ends well, and check it strictly."""
    encoder = make_encoder(kind, **options)
    num_choices = options.get("num_choices", 1)
    body = b"".join(encoder.first(index) for index in range(num_choices))
    body += b"".join(map(encoder.encode, events)) + encoder.end(USAGE, "0.00001200")
    return check_stream(
        body,
        kind=kind,
        num_choices=num_choices,
        include_usage=options.get("include_usage", False),
        openrouter=options.get("openrouter", False),
    )


@pytest.mark.parametrize("openrouter", [False, True])
@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_is_well_formed(kind: str, *, include_usage: bool, openrouter: bool) -> None:
    """Every rule of framing, null and order, on each endpoint, in each variant."""
    events: list[Event] = [TextDelta(0, "Hel"), TextDelta(0, "lo"), STOP]
    checked = stream(kind, events, include_usage=include_usage, openrouter=openrouter)
    assert checked.texts == {0: "Hello"}
    assert checked.finish_reasons == {0: "stop"}
    assert checked.usage is not None
    assert checked.usage["total_tokens"] == 8
    assert checked.usage["prompt_tokens_details"] == {"cached_tokens": 2}


def test_the_bytes_of_a_chat_chunk() -> None:
    """One example to read."""
    assert make_encoder().encode(TextDelta(0, 'a"\n')) == (
        b'data: {"id":"gen-1","object":"chat.completion.chunk","created":7,"model":"a/b",'
        b'"system_fingerprint":"fp","choices":[{"index":0,"delta":{"content":"a\\"\\n"},'
        b'"logprobs":null,"finish_reason":null}]}\n\n'
    )


def test_bug_01_usage_that_was_asked_for_comes_alone_after_every_finish() -> None:
    """BUG-01: one usage object, in a chunk without choices, right before the end."""
    events: list[Event] = [TextDelta(0, "x"), STOP]
    checked = stream("chat", events, include_usage=True)
    assert [chunk["usage"] for chunk in checked.chunks[:-1]] == [None, None, None]
    assert checked.chunks[-1]["choices"] == []
    assert checked.chunks[-1]["usage"] == checked.usage


def test_bug_01_usage_that_was_not_asked_for_rides_on_the_last_finish() -> None:
    """Every chunk has a choice, so that clients which index it keep working."""
    events: list[Event] = [TextDelta(0, "x"), STOP]
    checked = stream("chat", events)
    assert all(chunk["choices"] for chunk in checked.chunks)
    assert ["usage" in chunk for chunk in checked.chunks] == [False, False, True]


def test_bug_33_an_empty_completion_still_has_usage_and_a_reason() -> None:
    """BUG-33: nothing generated is no lost turn."""
    for kind in KINDS:
        for include_usage in (False, True):
            checked = stream(kind, [STOP], include_usage=include_usage)
            assert checked.usage is not None
            assert checked.finish_reasons == {0: "stop"}


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_bug_19_choices_interleave(kind: str, *, include_usage: bool) -> None:
    """BUG-19: n=3 streams three indexes, three reasons, one usage, in any order of ends."""
    events: list[Event] = [
        TextDelta(2, "c"),
        TextDelta(0, "a"),
        Finished(2, "length", "length"),
        TextDelta(1, "b"),
        Finished(0, "stop", "eos"),
        TextDelta(1, "b"),
        Finished(1, "stop", "stop_string"),
    ]
    checked = stream(kind, events, num_choices=3, include_usage=include_usage)
    assert checked.texts == {0: "a", 1: "bb", 2: "c"}
    assert checked.finish_reasons == {0: "stop", 1: "stop", 2: "length"}


@pytest.mark.parametrize("reason", ["stop", "length"])
@pytest.mark.parametrize("kind", KINDS)
def test_bug_05_the_reason_is_null_until_the_last(kind: str, reason: Any) -> None:
    """BUG-05: the key is always there, and holds null or a word that clients know."""
    events: list[Event] = [TextDelta(0, "x"), TextDelta(0, "y"), Finished(0, reason, "native")]
    checked = stream(kind, events)
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in checked.chunks]
    assert reasons == [None] * (len(reasons) - 1) + [reason]


def test_bug_20_id_and_model_stay() -> None:
    """BUG-20: one id, one created, one model, whatever they contain."""
    model = 'quote" \\ line\n sep\u2028 é'
    checked = stream("chat", [TextDelta(0, "x"), STOP], model=model, include_usage=True)
    assert {chunk["model"] for chunk in checked.chunks} == {model}
    assert {(chunk["id"], chunk["created"]) for chunk in checked.chunks} == {("gen-1", 7)}


def test_native_reason_and_cost_are_openrouters() -> None:
    """`/api/v1` adds them, exactly; `/v1` never does."""
    checked = stream("chat", [STOP], openrouter=True)
    assert checked.chunks[-1]["choices"][0]["native_finish_reason"] == "eos"
    assert checked.usage is not None
    assert checked.usage["cost"] == 0.000012
    plain = stream("chat", [STOP])
    assert "native_finish_reason" not in plain.chunks[-1]["choices"][0]
    assert plain.usage is not None
    assert "cost" not in plain.usage


@pytest.mark.parametrize(
    "text", ["\u2028", "\u2029", "\u0085", "x\u2028\u0085é", "\r\n", "\x1c", "🤖"]
)
def test_bug_13_no_text_breaks_a_line(text: str) -> None:
    """BUG-13: whatever a client takes for a line end, an event stays one line."""
    for kind in KINDS:
        assert stream(kind, [TextDelta(0, text), STOP]).texts == {0: text}


@pytest.mark.parametrize("openrouter", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_bug_13_an_error_ends_the_stream_with_a_reason(kind: Any, *, openrouter: bool) -> None:
    """BUG-13: one chunk with the error and the choice's end, then the terminator."""
    encoder = make_encoder(kind, openrouter=openrouter)
    body = encoder.first(0) + encoder.encode(TextDelta(0, "par"))
    body += encoder.error(StepFailed("the backend failed"), USAGE)
    checked = check_stream(body, kind=kind, openrouter=openrouter)
    assert checked.finish_reasons == {0: "error"}
    assert checked.error is not None
    assert checked.error["message"] == "the backend failed"
    assert checked.error["code"] == (502 if openrouter else "backend_error")
    assert checked.usage is not None


def test_an_unknown_error_keeps_its_text_inside() -> None:
    """Only our own errors have messages for clients."""
    for openrouter in (False, True):
        body = make_encoder(openrouter=openrouter).error(ValueError("/secret/path"))
        assert b"secret" not in body
        assert check_stream(body, openrouter=openrouter).error is not None


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("ends_by", ["end", "error"])
@pytest.mark.parametrize("reason", ["error", "abort"])
def test_bug_31_one_reason_per_choice_however_it_fails(
    reason: Any, ends_by: str, *, include_usage: bool
) -> None:
    """BUG-31: failed choices end with `error` once, the others keep their own reason."""
    failure = StepFailed("the backend failed")
    encoder = make_encoder(num_choices=3, include_usage=include_usage)
    body = b"".join(encoder.first(index) for index in range(3))
    body += encoder.encode(Finished(1, reason, "x", failure))
    body += encoder.encode(Finished(0, "length", "length"))
    body += encoder.encode(Finished(2, reason, "x", failure))
    body += encoder.end(USAGE) if ends_by == "end" else encoder.error(failure)
    checked = check_stream(body, num_choices=3, include_usage=include_usage)
    assert checked.finish_reasons == {0: "length", 1: "error", 2: "error"}
    assert b"abort" not in body


def test_bug_31_a_failure_after_the_last_choice_is_not_a_second_reason() -> None:
    """What fails after the finish left adds an error, not another end of the choice."""
    encoder = make_encoder(include_usage=True)
    body = encoder.first(0) + encoder.encode(STOP) + encoder.error(Overloaded("late"))
    assert check_stream(body, include_usage=True).finish_reasons == {0: "stop"}


def test_bug_31_a_held_finish_turns_into_an_error() -> None:
    """A finish still waiting for usage did not happen if the end fails."""
    encoder = make_encoder()
    body = encoder.first(0) + encoder.encode(STOP) + encoder.error(Overloaded("late"))
    assert check_stream(body).finish_reasons == {0: "error"}


def test_bug_32_keepalives_are_comments() -> None:
    """BUG-32: a comment and a blank line, never an event without data."""
    encoder = make_encoder()
    body = KEEPALIVE + encoder.first(0) + KEEPALIVE + encoder.encode(STOP) + encoder.end(USAGE)
    assert check_stream(body).num_comments == 2
    assert DONE == b"data: [DONE]\n\n"


def decode_token(token_id: int) -> tuple[str, bytes]:
    """A vocabulary of single letters."""
    raw = bytes([97 + token_id])
    return raw.decode(), raw


def test_logprobs_of_a_chat_come_with_their_text() -> None:
    """Each chunk holds the tokens of its text; a chunk without any says so."""
    entry = TokenLogprobs(0, -0.5, ((0, -0.5), (1, -1.0)))
    events: list[Event] = [TextDelta(0, "a", (entry,)), TextDelta(0, ""), STOP]
    checked = stream("chat", events, decode_token=decode_token)
    shown = [chunk["choices"][0]["logprobs"] for chunk in checked.chunks]
    token = {"token": "a", "logprob": -0.5, "bytes": [97]}
    other = {"token": "b", "logprob": -1.0, "bytes": [98]}
    assert shown == [
        None,
        {"content": [{**token, "top_logprobs": [token, other]}], "refusal": None},
        {"content": [], "refusal": None},
        None,
    ]


def test_logprobs_of_completions_count_on_from_chunk_to_chunk() -> None:
    """`text_offset` goes on, for each choice by itself, through the echoed prompt."""
    events: list[Event] = [
        PromptEcho(0, (TokenLogprobs(0, None), TokenLogprobs(1, -1.0))),
        PromptEcho(1, (TokenLogprobs(2, None),)),
        TextDelta(0, "c", (TokenLogprobs(2, -2.0),)),
        TextDelta(1, "a", (TokenLogprobs(0, -3.0),)),
        Finished(0, "stop", "eos"),
        Finished(1, "stop", "eos"),
    ]
    checked = stream(
        "completion", events, num_choices=2, decode_token=decode_token, echo=["ab", "c"]
    )
    assert checked.texts == {0: "abc", 1: "ca"}
    shown = [chunk["choices"][0]["logprobs"] for chunk in checked.chunks[:4]]
    assert [logprobs["text_offset"] for logprobs in shown] == [[0, 1], [0], [2], [1]]
    assert shown[0]["token_logprobs"] == [None, -1.0]
    assert shown[0]["top_logprobs"] == [None, {"b": -1.0}]


def test_echo_without_logprobs_opens_the_choice() -> None:
    """The prompt is the first text of each choice."""
    events: list[Event] = [TextDelta(0, "!"), STOP]
    assert stream("completion", events, echo=["hi"]).texts == {0: "hi!"}
    assert make_encoder("completion").first(0) == b""


def test_the_checker_finds_what_it_is_for() -> None:
    """Broken streams fail: the checker is used as proof elsewhere."""
    encoder = make_encoder()
    good = encoder.first(0) + encoder.encode(TextDelta(0, "x")) + encoder.encode(STOP)
    good += encoder.end(USAGE)
    check_stream(good)
    broken = [
        good.removesuffix(DONE),
        good + DONE,
        good.replace(b"\n\n", b"\r\n\r\n"),
        good.replace(b"data: ", b"data:"),
        good.replace(b"data: ", b"event: x\ndata: "),
        b"retry: 3000\n\n" + good,
        good.replace(b'"finish_reason":"stop"', b'"finish_reason":""'),
        good.replace(b'"finish_reason":"stop"', b'"finish_reason":"abort"'),
        good.replace(b'"usage":{', b'"usagex":{'),
        good.replace(b'"cached_tokens":2', b'"cached_tokens":null'),
        good.replace(b'"role":"assistant",', b""),
        good.replace(b'"content":"x"', b'"content":"x","role":"assistant"'),
        good.replace(b'"content":"x"', b'"content":"x","tool_calls":null'),
        good.replace(b'"content":"x"', b'"content":null'),
        good.replace(b'"system_fingerprint":"fp"', b'"system_fingerprint":null'),
        good.replace(b'"created":7', b'"created":7.5'),
        good.replace(b"gen-1", b"gen-2", 1),
        encoder.first(0) + good,
    ]
    for body in broken:
        with pytest.raises((AssertionError, KeyError)):
            check_stream(body)


def test_the_fast_way_equals_the_general_way() -> None:
    """A delta is what a JSON encoder would have made of the same chunk."""
    for kind in KINDS:
        encoder = make_encoder(kind, include_usage=True)
        event = encoder.encode(TextDelta(0, "plain é"))
        chunk = orjson.loads(event.removeprefix(b"data: "))
        assert event == b"data: " + orjson.dumps(chunk) + b"\n\n"

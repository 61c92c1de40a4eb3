"""Google's streams and whole answers: the same parts, framed as clients insist."""

from typing import Any

import orjson
import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from provider_core.dialects.google import (
    AnswerHead,
    ArrayEncoder,
    SseEncoder,
    encoder_class,
    response,
)
from provider_core.dialects.openai import make_decode_token
from provider_core.errors import BackendError
from provider_core.text.events import (
    ChoiceFinish,
    Event,
    Finished,
    PromptEcho,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from provider_core.types import TokenLogprobs, Usage

HEAD = AnswerHead(response_id="gen-1", model="100%/\u2028")
USAGE = Usage(prompt_tokens=30, cached_tokens=10, completion_tokens=7, reasoning_tokens=2)
COUNTS = {
    "promptTokenCount": 30,
    "candidatesTokenCount": 5,
    "totalTokenCount": 37,
    "cachedContentTokenCount": 10,
    "thoughtsTokenCount": 2,
}
CALLS: list[Event] = [
    ReasoningDelta(0, "let me "),
    ReasoningDelta(0, "see"),
    TextDelta(0, "I shall "),
    TextDelta(0, "look"),
    ToolCallStart(0, 0, "call_1", "look"),
    ToolCallDelta(0, 0, '{"a":'),
    ToolCallDelta(0, 0, '"\u2028"}'),
    ToolCallStart(0, 1, "call_2", "look"),
    ToolCallDelta(0, 1, "{}"),
    TextDelta(0, "there"),
    Finished(0, "tool_calls", "eos"),
]


def streamed(
    events: list[Event],
    *,
    encoder_type: type[SseEncoder] = SseEncoder,
    head: AnswerHead = HEAD,
    num_choices: int = 1,
) -> bytes:
    """A stream's whole body."""
    stream = encoder_type(head, num_choices)
    first = b"".join(map(stream.first, range(num_choices)))
    return first + b"".join(map(stream.encode, events)) + stream.end(USAGE)


def split_events(body: bytes) -> list[dict[str, Any]]:
    """Check the framing byte by byte and return the events' objects."""
    assert body.endswith(b"\n\n"), "a stream ends with a whole event"
    assert b"\r" not in body
    objects = []
    for event in body[:-2].split(b"\n\n"):
        assert event.startswith(b"data: {"), f"one object, one space, no comment: {event!r}"
        assert len(event.decode().splitlines()) == 1, f"a raw line break inside: {event!r}"
        objects.append(orjson.loads(event.removeprefix(b"data: ")))
    return objects


def folded(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Partial answers as one: neighbouring texts of one kind joined, empty ones left out."""
    whole = dict(objects[-1])
    whole["candidates"] = [dict(candidate) for candidate in whole["candidates"]]
    for candidate in whole["candidates"]:
        parts: list[dict[str, Any]] = []
        for partial in (c for o in objects for c in o["candidates"]):
            if partial["index"] != candidate["index"]:
                continue
            for part in partial["content"]["parts"]:
                if part.get("text") == "":
                    continue
                if parts and "text" in part and parts[-1].keys() == part.keys():
                    parts[-1] = {**part, "text": parts[-1]["text"] + part["text"]}
                else:
                    parts.append(part)
        candidate["content"] = {"parts": parts, "role": "model"}
    return whole


def whole_of(events: list[Event]) -> Any:
    """A whole answer, as a client parses it."""
    return orjson.loads(orjson.dumps(response(HEAD, events, USAGE)))


def test_a_call_is_shown_whole_and_everything_in_its_order() -> None:
    """Thoughts, text, two calls with their arguments as objects, text."""
    (candidate,) = whole_of(CALLS)["candidates"]

    assert candidate["content"]["parts"] == [
        {"text": "let me see", "thought": True},
        {"text": "I shall look"},
        {"functionCall": {"id": "call_1", "name": "look", "args": {"a": "\u2028"}}},
        {"functionCall": {"id": "call_2", "name": "look", "args": {}}},
        {"text": "there"},
    ]
    assert candidate["finishReason"] == "STOP"
    assert whole_of(CALLS)["usageMetadata"] == COUNTS


@pytest.mark.parametrize("encoder_type", [SseEncoder, ArrayEncoder])
def test_bug_04_a_whole_answer_is_the_folded_stream(encoder_type: type[SseEncoder]) -> None:
    """In either form of a stream."""
    body = streamed(CALLS, encoder_type=encoder_type)
    objects = split_events(body) if encoder_type is SseEncoder else orjson.loads(body)

    assert folded(objects) == whole_of(CALLS)
    assert {(o["responseId"], o["modelVersion"]) for o in objects} == {("gen-1", HEAD.model)}


_texts = st.text(max_size=3)
_events = st.lists(
    st.one_of(
        st.builds(TextDelta, st.integers(0, 1), _texts),
        st.builds(ReasoningDelta, st.integers(0, 1), _texts),
        st.just(PromptEcho(0, ())),
    ),
    max_size=8,
)


@given(_events)
def test_any_order_of_events_is_a_well_formed_stream(events: list[Event]) -> None:
    """Of several candidates, whose pieces come in turns."""
    events = [*events, Finished(1, "stop", "eos"), Finished(0, "length", "length")]
    objects = split_events(streamed(events, num_choices=2))

    assert folded(objects) == whole_of(events)
    assert all("usageMetadata" not in o for o in objects[:-1])
    assert [c["finishReason"] for c in objects[-1]["candidates"]] == ["MAX_TOKENS", "STOP"]


def test_bug_05_a_call_cut_by_the_token_limit_is_not_shown() -> None:
    """Half of an object is none; the reason says what happened."""
    events: list[Event] = [
        TextDelta(0, "a"),
        ToolCallStart(0, 0, "call_1", "f"),
        ToolCallDelta(0, 0, '{"a": '),
        Finished(0, "length", "length"),
    ]
    (candidate,) = whole_of(events)["candidates"]

    assert candidate["content"]["parts"] == [{"text": "a"}]
    assert candidate["finishReason"] == "MAX_TOKENS"
    assert folded(split_events(streamed(events))) == whole_of(events)


@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
@pytest.mark.parametrize("arguments", ['{"a": ', '{"a": NaN}', '{"a": 1e999}', "[]", ""])
def test_a_call_that_cannot_be_read_is_the_reason(reason: ChoiceFinish, arguments: str) -> None:
    """It was billed: an answer that says `STOP` and nothing else would hide that."""
    events: list[Event] = [
        TextDelta(0, "a"),
        ToolCallStart(0, 0, "call_1", "f"),
        ToolCallDelta(0, 0, arguments),
        Finished(0, reason, "eos"),
    ]
    (candidate,) = whole_of(events)["candidates"]

    assert candidate["content"]["parts"] == [{"text": "a"}]
    assert candidate["finishReason"] == "MALFORMED_FUNCTION_CALL"
    assert candidate["finishMessage"] == f"Malformed function call: f({arguments})"
    assert folded(split_events(streamed(events))) == whole_of(events)
    types.GenerateContentResponse.model_validate(whole_of(events))


def test_bug_31_an_empty_answer_ends_like_any_other() -> None:
    """One event with the reason and the counts."""
    (only,) = split_events(streamed([Finished(0, "stop", "eos")]))

    assert only["candidates"][0]["finishReason"] == "STOP"
    assert only["usageMetadata"] == COUNTS


def test_bug_13_a_failure_is_the_last_event_and_error_its_first_key() -> None:
    """By which the Python library tells it; a foreign exception's text stays inside."""
    for encoder_type in (SseEncoder, ArrayEncoder):
        stream = encoder_type(HEAD, 1)
        body = stream.encode(CALLS[0]) + stream.error(BackendError("the step failed"), USAGE)
        objects = split_events(body) if encoder_type is SseEncoder else orjson.loads(body)
        assert objects[-1] == {
            "error": {"code": 502, "message": "the step failed", "status": "INTERNAL"}
        }
    foreign = SseEncoder(HEAD, 1).error(ValueError("secret"))
    assert foreign.startswith(b'data: {"error":{"code":500,')
    assert b"secret" not in foreign


def test_logprobs_are_of_the_tokens_of_each_piece() -> None:
    """A token that shows nothing is in the list as well."""
    entries = (TokenLogprobs(0, -0.5, ((0, -0.5), (1, float("-inf")))), TokenLogprobs(1, -1.5))
    events: list[Event] = [
        TextDelta(0, "a", entries[:1]),
        TextDelta(0, "", entries[1:]),
        Finished(0, "stop", "eos"),
    ]
    decode = make_decode_token(lambda token_id: bytes([97 + token_id]))
    head = AnswerHead(response_id="gen-1", model="m", decode_token=decode)
    pieces = split_events(streamed(events, head=head))
    whole = response(head, events, USAGE)["candidates"][0]

    results = [piece["candidates"][0]["logprobsResult"] for piece in pieces[:2]]
    chosen = [entry for result in results for entry in result["chosenCandidates"]]
    assert chosen == whole["logprobsResult"]["chosenCandidates"]
    assert chosen[0] == {"token": "a", "tokenId": 0, "logProbability": -0.5}
    assert results[0]["topCandidates"][0]["candidates"][1]["logProbability"] == -9999.0
    assert whole["avgLogprobs"] == -1.0


def test_what_keeps_a_stream_alive_says_nothing() -> None:
    """An answer with an empty text in one form, space between elements in the other."""
    (event,) = split_events(SseEncoder.keepalive)
    parsed = types.GenerateContentResponse.model_validate(event)

    assert parsed.text == ""
    assert orjson.loads(ArrayEncoder.keepalive + streamed(CALLS, encoder_type=ArrayEncoder))


def test_alt_decides_the_form() -> None:
    """As Google's REST interface has it."""
    assert encoder_class({"alt": "sse"}) is SseEncoder
    assert encoder_class({"alt": "json"}) is encoder_class({}) is ArrayEncoder


def test_answers_have_the_types_of_the_package() -> None:
    """Every piece and the whole validate, and hold what they held."""
    for value in [*split_events(streamed(CALLS)), whole_of(CALLS)]:
        parsed = types.GenerateContentResponse.model_validate(value)
        dumped = parsed.model_dump(mode="json", by_alias=True, exclude_none=True)
        assert dumped == value

"""Streams and whole replies that hold reasoning and calls of tools."""

import string
from itertools import pairwise
from typing import Any

import openai.types.chat as sdk_chat
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState

from provider_core.dialects.openai import ChatStreamEncoder, chat_completion, make_decode_token
from provider_core.dialects.openai.chat_form import ChatForm
from provider_core.errors import StepFailed
from provider_core.text.events import (
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    fold,
)
from provider_core.types import TokenLogprobs, Usage
from tests.sse_checker import CheckedStream, check_stream, split_events

USAGE = Usage(prompt_tokens=5, completion_tokens=9, reasoning_tokens=2)
HEAD: dict[str, Any] = {"generation_id": "gen-1", "created": 7, "model": "a/b", "fingerprint": "fp"}
TOOLS = ChatForm(offers_tools=True)
LEGACY = ChatForm(offers_tools=True, is_legacy=True)
END = Finished(0, "tool_calls", "eos")


def call_events(number: int, name: str, *fragments: str, index: int = 0) -> list[Event]:
    """One call in pieces."""
    start = ToolCallStart(index, number, f"call_{index}_{number}", name)
    return [start, *(ToolCallDelta(index, number, fragment) for fragment in fragments)]


def body_of(events: list[Event], *, form: ChatForm = TOOLS, **options: Any) -> bytes:
    """All bytes of a stream."""
    encoder = ChatStreamEncoder(**HEAD, form=form, **options)
    choices = range(options.get("num_choices", 1))
    first = b"".join(map(encoder.first, choices))
    return first + b"".join(map(encoder.encode, events)) + encoder.end(USAGE)


def stream(events: list[Event], **options: Any) -> CheckedStream:
    """Encode a whole stream and check it strictly."""
    return check_stream(body_of(events, **options), num_choices=options.get("num_choices", 1))


def message(events: list[Event], *, form: ChatForm = TOOLS) -> dict[str, Any]:
    """The message of the whole reply to the same events."""
    reply = orjson.loads(orjson.dumps(chat_completion(fold(events), USAGE, **HEAD, form=form)))
    sdk_chat.ChatCompletion.model_validate_json(orjson.dumps(reply), strict=True)
    said: dict[str, Any] = reply["choices"][0]["message"]
    return said


def test_the_bytes_of_a_call() -> None:
    """One example to read: the identity once, then nothing but arguments."""
    encoder = ChatStreamEncoder(**HEAD, form=TOOLS)
    events = call_events(0, "f", '{"a":')
    chunks = split_events(b"".join(map(encoder.encode, events)) + b"data: [DONE]\n\n")[0]
    assert [orjson.loads(chunk)["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": None},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_0_0",
                    "type": "function",
                    "function": {"name": "f", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
    ]


@pytest.mark.parametrize("names", [("f", "f", "f"), ("f", "g", "h")])
def test_bug_02_parallel_calls_count_up(names: tuple[str, ...]) -> None:
    """BUG-02: three calls, indexes 0, 1, 2; the joined arguments parse."""
    events: list[Event] = []
    for number, name in enumerate(names):
        events += call_events(number, name, '{"n"', f":{number}", "}")
    checked = stream([*events, END])
    assert [call["name"] for call in checked.calls[0]] == list(names)
    assert [orjson.loads(call["arguments"]) for call in checked.calls[0]] == [
        {"n": 0},
        {"n": 1},
        {"n": 2},
    ]


def test_bug_02_the_package_accumulates_the_same_calls() -> None:
    """BUG-02, BUG-03: OpenAI's own accumulator ends up with what the whole reply says."""
    events = [*call_events(0, "f", "{", '"a":1}'), *call_events(1, "g", "{}"), END]
    state = ChatCompletionStreamState()
    for payload in split_events(body_of(events))[0]:
        state.handle_chunk(sdk_chat.ChatCompletionChunk.model_validate_json(payload, strict=True))
    said = state.get_final_completion().choices[0].message
    whole = message(events)
    assert said.content is None
    assert said.role == "assistant"
    assert said.tool_calls is not None
    for accumulated, expected in zip(said.tool_calls, whole["tool_calls"], strict=True):
        assert accumulated.id == expected["id"]
        assert accumulated.function.name == expected["function"]["name"]
        assert accumulated.function.arguments == expected["function"]["arguments"]


def test_bug_03_identity_comes_once() -> None:
    """BUG-03: id, type and name are in the first delta of a call and nowhere else."""
    body = body_of([*call_events(0, "lookup", "{", "}"), END])
    assert body.count(b'"id":"call_0_0"') == 1
    assert body.count(b'"type":"function"') == 1
    assert body.count(b'"name":"lookup"') == 1
    assert body.count(b"null") == body.count(b'"logprobs":null') + body.count(
        b'"finish_reason":null'
    ) + body.count(b'"content":null')


def test_bug_04_text_around_calls_stays() -> None:
    """BUG-04: what is said before and after a call is content, streamed or whole."""
    events = [TextDelta(0, "Let me "), *call_events(0, "f", "{}"), TextDelta(0, "look."), END]
    checked = stream(events)
    assert checked.texts == {0: "Let me look."}
    assert message(events)["content"] == "Let me look."
    assert message(events)["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


@pytest.mark.parametrize("reason", ["tool_calls", "length", "stop"])
def test_bug_05_the_reason_of_a_call_is_the_generations(reason: Any) -> None:
    """BUG-05: a call cut by the limit ends with `length`, streamed or whole."""
    events = [*call_events(0, "f", '{"a'), Finished(0, reason, "x")]
    assert stream(events).finish_reasons == {0: reason}
    reply = chat_completion(fold(events), USAGE, **HEAD, form=TOOLS)
    assert reply["choices"][0]["finish_reason"] == reason


def test_bug_21_a_call_without_arguments_has_an_empty_object() -> None:
    """BUG-21: never an empty string, never null."""
    events = [*call_events(0, "now", "{}"), END]
    assert stream(events).calls[0][0]["arguments"] == "{}"
    assert message(events)["tool_calls"][0]["function"]["arguments"] == "{}"


@given(st.dictionaries(st.text(max_size=5), st.text()), st.lists(st.integers(0, 200)))
def test_bug_28_fragments_join_to_the_original(value: dict[str, str], cuts: list[int]) -> None:
    """BUG-28: any arguments, cut anywhere, arrive whole and in order."""
    arguments = orjson.dumps(value).decode()
    places = [0, *sorted(min(cut, len(arguments)) for cut in cuts), len(arguments)]
    pieces = [arguments[a:b] for a, b in pairwise(places)]
    events = [*call_events(0, "f", *pieces), *call_events(1, "f", *pieces), END]
    assert [call["arguments"] for call in stream(events).calls[0]] == [arguments] * 2
    assert [c["function"]["arguments"] for c in message(events)["tool_calls"]] == [arguments] * 2


def test_calls_of_several_choices_interleave() -> None:
    """Each choice counts its own calls, and opens by its own first event."""
    events = [
        TextDelta(1, "hm"),
        *call_events(0, "f", "{", index=0),
        *call_events(0, "g", "{}", index=1),
        ToolCallDelta(0, 0, "}"),
        Finished(1, "tool_calls", "eos"),
        END,
    ]
    checked = stream(events, num_choices=2)
    assert {index: calls[0]["name"] for index, calls in checked.calls.items()} == {0: "f", 1: "g"}
    contents = {
        chunk["choices"][0]["index"]: chunk["choices"][0]["delta"]["content"]
        for chunk in checked.chunks
        if "role" in chunk["choices"][0]["delta"]
    }
    assert contents == {0: None, 1: ""}


def test_content_is_null_only_where_there_are_calls() -> None:
    """With tools at hand and none called, everything is as without."""
    events: list[Event] = [TextDelta(0, "hi"), Finished(0, "stop", "eos")]
    assert body_of(events) == body_of(events, form=ChatForm())
    assert message(events) == {"role": "assistant", "content": "hi", "refusal": None}
    silent: list[Event] = [Finished(0, "stop", "eos")]
    assert body_of(silent) == body_of(silent, form=ChatForm())
    assert message(silent)["content"] == ""
    assert message([*call_events(0, "f", "{}"), END])["content"] is None


def test_a_legacy_call_is_a_function_call() -> None:
    """`functions` are answered with `function_call`, in pieces or whole."""
    events = [*call_events(0, "f", '{"a":', "1}"), END]
    checked = stream(events, form=LEGACY)
    assert checked.calls == {0: [{"name": "f", "arguments": '{"a":1}'}]}
    assert checked.finish_reasons == {0: "function_call"}
    said = message(events, form=LEGACY)
    assert said["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert "tool_calls" not in said
    reply = chat_completion(fold(events), USAGE, **HEAD, form=LEGACY)
    assert reply["choices"][0]["finish_reason"] == "function_call"


def test_bug_30_reasoning_has_fields_of_its_own() -> None:
    """BUG-30: as text and as an item, before the content and never in it."""
    events: list[Event] = [
        ReasoningDelta(0, "Well\u2028"),
        ReasoningDelta(0, "..."),
        TextDelta(0, "Yes"),
        Finished(0, "stop", "eos"),
    ]
    for form in (ChatForm(), TOOLS):
        checked = stream(events, form=form)
        assert checked.reasonings == {0: "Well\u2028..."}
        assert checked.texts == {0: "Yes"}
    said = message(events)
    assert said["reasoning"] == "Well\u2028..."
    assert said["reasoning_details"] == [
        {"type": "reasoning.text", "text": "Well\u2028...", "index": 0}
    ]
    assert said["content"] == "Yes"
    assert "reasoning_content" not in said
    assert b"reasoning_content" not in body_of(events)


def test_reasoning_content_is_an_alias_by_choice() -> None:
    """The other name says the same, beside the first."""
    form = ChatForm(has_reasoning_content=True)
    events: list[Event] = [ReasoningDelta(0, "hm"), Finished(0, "length", "length")]
    assert message(events, form=form)["reasoning_content"] == "hm"
    deltas = [chunk["choices"][0]["delta"] for chunk in stream(events, form=form).chunks]
    assert [delta.get("reasoning_content") for delta in deltas] == [None, "hm", None]


def test_bug_18_every_token_has_its_entry() -> None:
    """BUG-18: reasoning and calls count, too: as many entries as tokens."""
    letters = iter(range(26))

    def entry() -> tuple[TokenLogprobs, ...]:
        return (TokenLogprobs(next(letters), -0.5),)

    events: list[Event] = [
        ReasoningDelta(0, "a", entry()),
        TextDelta(0, "b", entry()),
        ToolCallStart(0, 0, "call_x", "f", entry()),
        ToolCallDelta(0, 0, "{}", entry()),
        TextDelta(0, "", entry()),
        END,
    ]
    decode_token = make_decode_token(lambda token_id: string.ascii_letters[token_id].encode())
    checked = stream(events, decode_token=decode_token)
    shown = [chunk["choices"][0]["logprobs"] or {"content": []} for chunk in checked.chunks]
    streamed = [token for logprobs in shown for token in logprobs["content"]]
    reply = chat_completion(fold(events), USAGE, **HEAD, form=TOOLS, decode_token=decode_token)
    assert [token["token"] for token in streamed] == list("abcde")
    assert reply["choices"][0]["logprobs"]["content"] == streamed


def test_bug_13_a_stream_of_calls_that_fails_says_so() -> None:
    """BUG-13: before the first event or amid arguments, the error ends every choice."""
    for events in ([], call_events(0, "f", '{"a')):
        encoder = ChatStreamEncoder(**HEAD, form=TOOLS)
        body = encoder.first(0) + b"".join(map(encoder.encode, events))
        body += encoder.error(StepFailed("the backend failed"), USAGE)
        checked = check_stream(body)
        assert checked.finish_reasons == {0: "error"}
        assert checked.error is not None


def test_the_tier_that_served_is_at_the_root() -> None:
    """Where the client named one, and nowhere else."""
    events: list[Event] = [TextDelta(0, "hi"), Finished(0, "stop", "eos")]
    chunks = stream(events, service_tier="default").chunks
    assert {chunk["service_tier"] for chunk in chunks} == {"default"}
    reply = chat_completion(fold(events), USAGE, **HEAD, service_tier="default")
    assert reply["service_tier"] == "default"
    assert "service_tier" not in chat_completion(fold(events), USAGE, **HEAD)


def test_the_checker_knows_broken_calls() -> None:
    """Streams with the bugs above fail: the checker is used as proof elsewhere."""
    events = [ReasoningDelta(0, "hm"), *call_events(0, "f", "{", "}"), *call_events(1, "g"), END]
    good = body_of(events)
    check_stream(good)
    fragment = b'{"index":0,"function":{"arguments":"{"}}'
    broken = [
        good.replace(b'{"index":1,"id"', b'{"index":0,"id"'),
        good.replace(b'{"index":1,"id"', b'{"id"'),
        good.replace(fragment, b'{"index":0,"id":"call_0_0","function":{"arguments":"{"}}'),
        good.replace(fragment, b'{"index":0,"type":null,"function":{"arguments":"{"}}'),
        good.replace(fragment, b'{"index":0,"function":{"name":"f","arguments":"{"}}'),
        good.replace(fragment, fragment + b"," + fragment),
        good.replace(b'"arguments":""', b'"arguments":"{}"'),
        good.replace(b'"arguments":""', b'"arguments":null'),
        good.replace(b"call_0_1", b"call_0_0"),
        good.replace(b"call_0_1", b"x" * 65),
        good.replace(b'"delta":{}', b'"delta":{"tool_calls":[]}'),
        good.replace(b'"delta":{}', b'"delta":{"tool_calls":null}'),
        good.replace(b'"delta":{}', b'"delta":{"reasoning_details":null}'),
    ]
    for body in broken:
        assert body != good
        with pytest.raises((AssertionError, KeyError, ValueError)):
            check_stream(body)

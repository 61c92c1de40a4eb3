"""Anthropic's stream and whole messages: the same blocks, framed and counted as clients insist."""

from itertools import pairwise
from typing import Any

import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from provider_core.dialects.anthropic import MessageHead, MessageStreamEncoder, message
from provider_core.errors import BackendError, Unavailable
from provider_core.text.events import (
    Event,
    Finished,
    PromptEcho,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from provider_core.types import Usage
from tests.anthropic_sse_checker import CheckedMessage, check_message_stream, split_events

HEAD = MessageHead(message_id="msg_1", model="a/b", max_model_len=100, max_tokens=20)
AT_START = Usage(prompt_tokens=30, cached_tokens=10)
USAGE = Usage(prompt_tokens=30, cached_tokens=10, completion_tokens=7, reasoning_tokens=2)
STOP = Finished(0, "stop", "eos")
CALLS: list[Event] = [
    ReasoningDelta(0, "let me "),
    ReasoningDelta(0, "see"),
    TextDelta(0, "I shall look"),
    ToolCallStart(0, 0, "call_1", "look"),
    ToolCallDelta(0, 0, '{"a":'),
    ToolCallDelta(0, 0, '"\u2028"}'),
    TextDelta(0, "and again"),
    ToolCallStart(0, 1, "call_2", "look"),
    ToolCallDelta(0, 1, "{}"),
    ReasoningDelta(0, "enough"),
    Finished(0, "tool_calls", "eos"),
]


def encoder() -> MessageStreamEncoder:
    """A stream of a message that has not started."""
    return MessageStreamEncoder(HEAD, lambda: AT_START, "req-1")


def streamed(events: list[Event], usage: Usage = USAGE) -> bytes:
    """A stream's whole body."""
    stream = encoder()
    return stream.first(0) + b"".join(map(stream.encode, events)) + stream.end(usage)


def folded(events: list[Event], usage: Usage = USAGE) -> Any:
    """A whole message, as a client parses it."""
    return orjson.loads(orjson.dumps(message(HEAD, events, usage)))


def checked(events: list[Event], usage: Usage = USAGE) -> CheckedMessage:
    """A stream, checked."""
    return check_message_stream(streamed(events, usage))


def test_bug_26_message_start_has_the_real_input_tokens() -> None:
    """What was read from the cache is counted beside them; no output was made yet."""
    usage = checked([TextDelta(0, "a"), STOP]).start_usage

    assert usage is not None
    assert usage["input_tokens"] == 20
    assert usage["cache_read_input_tokens"] == 10
    assert usage["output_tokens"] == 0


def test_bug_27_blocks_follow_each_other_and_deltas_match_the_open_one() -> None:
    """Thinking, text, a call, text, a call without arguments, thinking: six blocks in order."""
    whole = checked(CALLS).message

    assert whole is not None
    kinds = [block["type"] for block in whole["content"]]
    assert kinds == ["thinking", "text", "tool_use", "text", "tool_use", "thinking"]
    assert whole["content"][2]["input"] == {"a": "\u2028"}
    assert whole["content"][4] == {"type": "tool_use", "id": "call_2", "name": "look", "input": {}}
    assert whole["stop_reason"] == "tool_use"


def test_bug_27_a_whole_message_is_the_folded_stream() -> None:
    """The same blocks, reasons and counts."""
    assert folded(CALLS) == checked(CALLS).message


_texts = st.text(max_size=3)
_events = st.lists(
    st.one_of(
        st.builds(TextDelta, st.just(0), _texts),
        st.builds(ReasoningDelta, st.just(0), _texts),
        st.just(ToolCallStart(0, 0, "call_1", "f")),
        st.just(PromptEcho(0, ())),
    ),
    max_size=8,
)


@given(_events)
def test_any_order_of_events_is_a_well_formed_stream(events: list[Event]) -> None:
    """The checker passes, and the fold says what the stream said."""
    assert checked([*events, STOP]).message == folded([*events, STOP])


@given(st.dictionaries(st.text(), st.integers(-(2**63), 2**63 - 1) | st.text()), st.data())
def test_bug_28_fragments_of_arguments_join_to_the_object(
    arguments: dict[str, Any], data: st.DataObject
) -> None:
    """Wherever the tokens cut it."""
    text = orjson.dumps(arguments).decode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))) | {0, len(text)})
    pieces = [text[a:b] for a, b in pairwise(cuts)]
    events: list[Event] = [ToolCallStart(0, 0, "call_1", "f")]
    events += [ToolCallDelta(0, 0, piece) for piece in pieces]
    whole = checked([*events, Finished(0, "tool_calls", "eos")]).message

    assert whole is not None
    assert whole["content"][0]["input"] == arguments


@pytest.mark.parametrize(
    ("finished", "usage", "reason", "sequence"),
    [
        (STOP, USAGE, "end_turn", None),
        (Finished(0, "stop", "stop_string", None, "###"), USAGE, "stop_sequence", "###"),
        (Finished(0, "tool_calls", "eos"), USAGE, "tool_use", None),
        (
            Finished(0, "length", "length"),
            Usage(prompt_tokens=80, completion_tokens=20),
            "max_tokens",
            None,
        ),
        (
            Finished(0, "length", "length"),
            Usage(prompt_tokens=90, completion_tokens=10),
            "model_context_window_exceeded",
            None,
        ),
        (
            Finished(0, "length", "length"),
            Usage(prompt_tokens=9, completion_tokens=10),
            "max_tokens",  # the model's own limit of an answer
            None,
        ),
    ],
)
def test_bug_05_every_end_has_its_reason(
    finished: Finished, usage: Usage, reason: str, sequence: str | None
) -> None:
    """Streamed and whole alike."""
    events: list[Event] = [TextDelta(0, "a"), finished]
    for whole in (checked(events, usage).message, folded(events, usage)):
        assert whole is not None
        assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)


def test_bug_31_an_empty_answer_ends_like_any_other() -> None:
    """A start, the counts, the end; no block."""
    assert checked([STOP]).types == ["message_start", "message_delta", "message_stop"]


@pytest.mark.parametrize("arguments", ['{"a": ', '{"a": 1e999}', "[]"])
@pytest.mark.parametrize(
    ("end", "reason"),
    [(Finished(0, "length", "length"), "max_tokens"), (Finished(0, "tool_calls", "x"), "tool_use")],
)
def test_arguments_that_cannot_be_read_are_told_as_such(
    end: Finished, reason: str, arguments: str
) -> None:
    """`{}` would be a call of its own; a stream shows the text."""
    broken: list[Event] = [
        ToolCallStart(0, 0, "call_1", "f"),
        ToolCallDelta(0, 0, arguments),
        end,
    ]
    assert folded(broken)["content"][0]["input"] == {"INVALID_JSON": arguments}
    assert folded(broken)["stop_reason"] == reason


def test_numbers_in_arguments_keep_every_digit() -> None:
    """As the model wrote them, beyond 64 bit, too."""
    digits = "123456789012345678901234567890"
    events: list[Event] = [
        ToolCallStart(0, 0, "call_1", "f"),
        ToolCallDelta(0, 0, f'{{"a":{digits}}}'),
        Finished(0, "tool_calls", "eos"),
    ]
    assert f'"input":{{"a":{digits}}}'.encode() in orjson.dumps(message(HEAD, events, USAGE))


def test_the_counts_of_the_end_are_cumulative() -> None:
    """Output with reasoning in it, and input without what was cached."""
    whole = checked(CALLS).message

    assert whole is not None
    assert whole["usage"] == {
        "input_tokens": 20,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 10,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 2},
    }


@pytest.mark.parametrize("num_events", [0, 1, 3, 5])
def test_bug_13_a_failure_is_an_error_event_and_the_last(num_events: int) -> None:
    """Wherever it happens; the text of a foreign exception stays inside."""
    stream = encoder()
    body = b"".join(map(stream.encode, CALLS[:num_events]))
    named = check_message_stream(body + stream.error(Unavailable("draining", code="draining")))
    foreign = check_message_stream(body + stream.error(ValueError("secret"), USAGE, "0.1"))

    assert named.error == {"type": "overloaded_error", "message": "draining"}
    assert foreign.error is not None
    assert foreign.error["type"] == "api_error"
    assert "secret" not in foreign.error["message"]


def test_a_backend_that_failed_is_an_api_error() -> None:
    """Its own message is ours to show."""
    body = encoder().error(BackendError("the step failed"))
    assert check_message_stream(body).error == {"type": "api_error", "message": "the step failed"}


def test_pings_are_events_with_data() -> None:
    """One may stand before the message starts."""
    stream = check_message_stream(MessageStreamEncoder.keepalive + streamed(CALLS))
    assert stream.num_pings == 1
    assert stream.types[0] == "message_start"


def test_streams_and_messages_have_the_types_of_the_package() -> None:
    """Every event and the whole message validate strictly against the published types."""
    event_type: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    for event in split_events(streamed(CALLS)):
        event_type.validate_json(orjson.dumps(event), strict=True)
    Message.model_validate_json(orjson.dumps(message(HEAD, CALLS, USAGE)), strict=True)

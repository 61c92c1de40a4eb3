"""Streams of responses, against the types and the accumulator of OpenAI's own package."""

from typing import Any

import openai.types.responses as sdk
import orjson
import pytest
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from pydantic import TypeAdapter

from provider_core.dialects.openai import make_decode_token
from provider_core.dialects.openai.responses_api import (
    Output,
    ParsedResponse,
    ResponseHead,
    ResponseStreamEncoder,
    parse_response,
    whole_response,
)
from provider_core.errors import Overloaded, StepFailed
from provider_core.settings import LimitSettings
from provider_core.text.events import (
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from provider_core.types import TokenLogprobs, Usage

USAGE = Usage(prompt_tokens=9, cached_tokens=4, completion_tokens=6, reasoning_tokens=2)
STOP = Finished(0, "stop", "eos")
EVENTS: list[Event] = [
    ReasoningDelta(0, "Hm\u2028"),
    ReasoningDelta(0, "."),
    TextDelta(0, "Let me "),
    TextDelta(0, "look."),
    ToolCallStart(0, 0, "call_a", "f"),
    ToolCallDelta(0, 0, '{"a":'),
    ToolCallDelta(0, 0, "1}"),
    ToolCallStart(0, 1, "call_b", "g"),
    ToolCallDelta(0, 1, "{}"),
    TextDelta(0, "Done"),
    Finished(0, "tool_calls", "eos"),
]
ADAPTER: TypeAdapter[Any] = TypeAdapter(sdk.ResponseStreamEvent)
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}


def parsed(**fields: Any) -> ParsedResponse:
    """A request with these fields."""
    return parse_response({"model": "a/b", "input": "hi", **fields}, LimitSettings())


def head(*, openrouter: bool = False, **fields: Any) -> ResponseHead:
    """What is known before the response to a request with these fields."""
    return ResponseHead(
        response_id="gen-1",
        created_at=7,
        model="a/b",
        echo=parsed(**fields).echo,
        openrouter=openrouter,
        clock=lambda: 9.5,
    )


def read(body: bytes) -> list[dict[str, Any]]:
    """Check the framing, the numbers and the types of all events."""
    assert body.endswith(b"\n\n")
    events = []
    for number, frame in enumerate(body[:-2].split(b"\n\n")):
        name, _, data = frame.partition(b"\n")
        assert len(frame.decode().splitlines()) == 2
        event = orjson.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode()
        assert event["sequence_number"] == number
        ADAPTER.validate_json(data.removeprefix(b"data: "), strict=True)
        events.append(event)
    return events


def stream(events: list[Event], **options: Any) -> list[dict[str, Any]]:
    """Encode a whole stream that ends well, and read it."""
    decode_token = options.pop("decode_token", None)
    encoder = ResponseStreamEncoder(head(**options), Output("gen-1", decode_token))
    body = encoder.first(0) + b"".join(map(encoder.encode, events)) + encoder.end(USAGE, "0.5")
    return read(body)


def whole(events: list[Event], **options: Any) -> dict[str, Any]:
    """The whole reply to the same events, in the package's type."""
    reply = orjson.dumps(whole_response(head(**options), Output("gen-1"), events, USAGE, "0.5"))
    sdk.Response.model_validate_json(reply, strict=True)
    body: dict[str, Any] = orjson.loads(reply)
    return body


def test_the_order_of_events() -> None:
    """Created, in progress, each item from `added` to `done`, and the whole response."""
    opening = ["created", "in_progress"]
    thought = [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done"]
    call.append("output_item.done")
    text = [name.replace("reasoning_text", "output_text") for name in thought]
    short = [*text[:3], *text[4:]]
    two = [*call[:2], *call[1:]]
    expected = [*opening, *thought, *text, *two, *call, *short, "completed"]
    assert [event["type"] for event in stream(EVENTS)] == [f"response.{name}" for name in expected]


def test_places_belong_to_their_items() -> None:
    """Whatever is told of an item has its id and its index."""
    ids = {}
    for event in stream(EVENTS):
        if event["type"] == "response.output_item.added":
            ids[event["output_index"]] = event["item"]["id"]
        elif "item_id" in event:
            assert event["item_id"] == ids[event["output_index"]]
        elif event["type"] == "response.output_item.done":
            assert event["item"]["id"] == ids[event["output_index"]]
    assert [item_id.split("_")[0] for item_id in ids.values()] == ["rs", "msg", "fc", "fc", "msg"]
    assert len(set(ids.values())) == 5


def test_the_whole_reply_is_the_last_event() -> None:
    """Streamed and whole are one: items, counts and status."""
    last = stream(EVENTS)[-1]["response"]
    assert last == whole(EVENTS)
    assert (last["status"], last["created_at"], last["completed_at"]) == ("completed", 7, 9)
    assert [item["type"] for item in last["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
        "message",
    ]
    reasoning, message, call, _, _ = last["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Hm\u2028."}]
    assert reasoning["summary"] == []
    assert message["content"][0]["text"] == "Let me look."
    assert (call["call_id"], call["name"], call["arguments"]) == ("call_a", "f", '{"a":1}')
    assert {item["status"] for item in last["output"]} == {"completed"}
    assert last["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 6,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }


def test_the_package_accumulates_the_same_response() -> None:
    """Its helper raises on any event that comes too early, twice or under a wrong name."""
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in stream(EVENTS):
        state.handle_event(ADAPTER.validate_python(event))
    response = state._completed_response
    assert response is not None
    assert response.output_text == "Let me look.Done"
    assert [item.arguments for item in response.output[2:4]] == ['{"a":1}', "{}"]


@pytest.mark.parametrize("events", [EVENTS[:3], EVENTS[:6]])
def test_bug_05_what_the_limit_cuts_is_incomplete(events: list[Event]) -> None:
    """BUG-05: text or arguments that were cut say so, and why."""
    cut = [*events, Finished(0, "length", "length")]
    told = stream(cut)
    assert told[-1]["type"] == "response.incomplete"
    response = told[-1]["response"]
    assert response == whole(cut)
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    statuses = [item["status"] for item in response["output"]]
    assert statuses == ["completed"] * (len(statuses) - 1) + ["incomplete"]


def test_bug_33_an_empty_response_is_whole() -> None:
    """BUG-33: nothing generated still has a status and counts, and no empty item."""
    response = stream([TextDelta(0, ""), ReasoningDelta(0, ""), STOP])[-1]["response"]
    assert (response["status"], response["output"]) == ("completed", [])
    assert response["usage"]["output_tokens"] == 6


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (StepFailed("the backend failed"), "server_error", "the backend failed"),
        (Overloaded("too much"), "rate_limit_exceeded", "too much"),
        (ValueError("/secret"), "server_error", "the server had an error"),
    ],
)
def test_bug_13_a_failure_ends_the_stream_twice_told(
    error: Exception, code: str, message: str
) -> None:
    """BUG-13: a flat `error` event, and the failed response with what came before it."""
    encoder = ResponseStreamEncoder(head(), Output("gen-1"))
    body = encoder.first(0) + encoder.encode(TextDelta(0, "par")) + encoder.error(error, USAGE)
    told = read(body)
    failure, last = told[-2:]
    assert failure["type"] == "error"
    assert failure.keys() == {"type", "sequence_number", "code", "message", "param"}
    assert failure["message"].startswith(message)
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == code
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert last["response"]["usage"]["total_tokens"] == 15
    assert b"secret" not in body


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StepFailed("the backend failed"), "provider_unavailable"),
        (Overloaded("too much"), "rate_limit_exceeded"),
        (ValueError("/secret"), "server"),
        (None, "server"),
    ],
)
def test_openrouters_failures_say_their_kind(error: Exception | None, kind: str) -> None:
    """`error_type`, under `/api/v1` only."""
    encoder = ResponseStreamEncoder(head(openrouter=True), Output("gen-1"))
    failure = read(encoder.first(0) + encoder.error(error))[-2]
    assert (failure["type"], failure["error_type"]) == ("error", kind)


@pytest.mark.parametrize("reason", ["error", "abort"])
def test_bug_31_an_end_that_is_a_failure_is_told_as_one(reason: Any) -> None:
    """BUG-31: an engine's failure never becomes `completed`."""
    told = stream([Finished(0, reason, "x", StepFailed("the backend failed"))])
    assert told[-1]["type"] == "response.failed"
    assert b"abort" not in orjson.dumps(told)


def test_logprobs_are_with_their_text() -> None:
    """Each delta has the tokens of its text; the part has them all."""
    decode_token = make_decode_token(lambda token_id: bytes([97 + token_id]))
    entries = [TokenLogprobs(i, -0.5, ((i, -0.5), (2, -1.0))) for i in range(2)]
    events: list[Event] = [
        TextDelta(0, "a", (entries[0],)),
        TextDelta(0, "b", (entries[1],)),
        ToolCallStart(0, 0, "call_a", "f", (entries[0],)),
        TextDelta(0, "", (entries[0],)),
        STOP,
    ]
    told = stream(events, decode_token=decode_token)
    deltas = [event for event in told if event["type"] == "response.output_text.delta"]
    assert [[entry["token"] for entry in delta["logprobs"]] for delta in deltas] == [["a"], ["b"]]
    part = told[-1]["response"]["output"][0]["content"][0]
    assert [entry["token"] for entry in part["logprobs"]] == ["a", "b"]
    assert part["logprobs"][0]["top_logprobs"][1] == {"token": "c", "logprob": -1.0, "bytes": [99]}


def test_the_cost_is_openrouters() -> None:
    """Under `/api/v1` only."""
    assert stream([STOP], openrouter=True)[-1]["response"]["usage"]["cost"] == 0.5
    assert "cost" not in stream([STOP])[-1]["response"]["usage"]


def test_the_request_is_repeated() -> None:
    """What was asked, in the package's words, with defaults where nothing was."""
    schema = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}
    response = whole(
        [STOP],
        instructions="be brief",
        tools=[TOOL],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
        text={"format": schema},
        reasoning={"effort": "low"},
        metadata={"k": "v"},
        max_output_tokens=5,
        temperature=0,
        service_tier="flex",
        user="u",
    )
    assert response["instructions"] == "be brief"
    assert response["tools"] == [TOOL | {"description": None}]
    assert response["tool_choice"] == {"type": "function", "name": "f"}
    assert response["text"] == {"format": schema}
    assert response["reasoning"]["effort"] == "low"
    assert response["metadata"] == {"k": "v"}
    assert (response["max_output_tokens"], response["temperature"]) == (5, 0)
    assert (response["service_tier"], response["user"]) == ("default", "u")
    plain = whole([STOP])
    assert (plain["tool_choice"], plain["tools"]) == ("none", [])
    assert (plain["store"], plain["previous_response_id"]) == (False, None)
    assert "service_tier" not in plain

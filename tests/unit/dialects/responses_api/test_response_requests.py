"""Bodies of `POST /v1/responses`: a conversation in items, and what is refused."""

from typing import Any

import orjson
import pytest

from provider_core.dialects.chat_request import ImageSource, ReasoningOptions
from provider_core.dialects.openai.responses_api import ParsedResponse, parse_response
from provider_core.errors import InvalidRequest, UnsupportedParameter
from provider_core.settings import LimitSettings
from provider_core.types import Constraint, Tool, ToolChoice

LIMITS = LimitSettings()
USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOLS = [{"type": "function", "name": name, "parameters": SCHEMA} for name in ("f", "g")]
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "one"}


def response(**fields: Any) -> ParsedResponse:
    """Parse a request with these fields."""
    return parse_response({"model": "m", "input": "hi", **fields}, LIMITS)


def refused(**fields: Any) -> InvalidRequest:
    """The refusal of a request with these fields."""
    with pytest.raises(InvalidRequest) as raised:
        response(**fields)
    return raised.value


def messages(*items: Any, **fields: Any) -> list[dict[str, Any]]:
    """The chat that items become."""
    return response(input=list(items), **fields).messages


def test_a_text_is_a_message_of_the_user() -> None:
    """Instructions come first, as the system's."""
    assert response().messages == [USER]
    assert response(instructions="be brief").messages == [
        {"role": "system", "content": "be brief"},
        USER,
    ]


def test_messages_come_with_and_without_a_type() -> None:
    """Parts have names of their own; the text is the same."""
    assert messages(
        USER,
        {"type": "message", "role": "developer", "content": "d"},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "a", "annotations": []}],
        },
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "b"}, {"type": "input_text", "text": "c"}],
        },
    ) == [
        USER,
        {"role": "developer", "content": "d"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b\nc"},
    ]


def test_images_keep_their_places() -> None:
    """Of the user's messages; what is stored elsewhere cannot be shown."""
    url = "data:image/png;base64,AAAA"
    image = {"type": "input_image", "image_url": url, "detail": "low"}
    content = [{"type": "input_text", "text": "a"}, image]
    parsed = response(input=[USER, {"role": "user", "content": content}])
    assert parsed.images == (ImageSource(url, "input[1].content[1]"),)
    assert parsed.messages[1]["content"] == [{"type": "text", "text": "a"}, {"type": "image"}]
    stored = [{"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}]
    assert refused(input=stored).param == "input[0].content[0]"
    shown = [CALL, {**RESULT, "output": [image]}]
    assert refused(input=shown).param == "input[1].output[0]"


def test_a_turn_of_items_is_one_message() -> None:
    """Reasoning, text, calls: what the assistant did in one go, then each result."""
    reasoning = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "hm"}],
    }
    said = {"role": "assistant", "content": [{"type": "output_text", "text": "wait"}]}
    second = {**CALL, "call_id": "c2", "name": "g"}
    parts = [{"type": "input_text", "text": "two"}]
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": '{"a":1}'}},
    ]
    results = [
        {"role": "tool", "content": "two", "tool_call_id": "c2"},
        {"role": "tool", "content": "one", "tool_call_id": "c1"},
    ]
    outputs = [{**RESULT, "call_id": "c2", "output": parts}, RESULT]
    assert messages(USER, reasoning, said, CALL, second, *outputs) == [
        USER,
        {"role": "assistant", "content": "wait", "reasoning_content": "hm", "tool_calls": calls},
        *results,
    ]
    assert (
        messages(USER, CALL, RESULT, CALL, RESULT)[1::2]
        == [{"role": "assistant", "content": None, "tool_calls": calls[:1]}] * 2
    )
    assert (
        messages(USER, reasoning, CALL, reasoning, CALL)[1:]
        == [
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "hm",
                "tool_calls": calls[:1],
            }
        ]
        * 2
    )


@pytest.mark.parametrize(
    "item",
    [
        {"summary": [{"type": "summary_text", "text": "hm"}]},
        {"summary": [{"text": "x"}], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"summary": [{"text": "h"}, {"text": "m"}], "encrypted_content": "x"},
    ],
)
def test_reasoning_comes_back_in_any_form(item: dict[str, Any]) -> None:
    """What was thought, or at least its summary."""
    said = {"role": "assistant", "content": "a"}
    replayed = messages(USER, {"type": "reasoning", **item}, said)
    assert replayed[1] == said | {"reasoning_content": "hm"}


def test_reasoning_belongs_to_its_own_turn() -> None:
    """Thoughts that nothing followed are not put on a later turn."""
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}
    said = {"role": "assistant", "content": "a"}
    assert messages(USER, thought, USER, said)[-1] == said
    assert messages(USER, CALL, RESULT, thought)[-1]["role"] == "tool"


def test_an_assistants_last_message_is_answered() -> None:
    """The items end a turn; only chats continue one."""
    assert not response(input=[USER, {"role": "assistant", "content": "a"}]).continue_final_message


@pytest.mark.parametrize(
    ("items", "param"),
    [
        (None, "input"),
        (5, "input"),
        ([], "input"),
        (["hi"], "input[0]"),
        ([USER, {}], "input[1].role"),
        ([{"role": "robot", "content": "x"}], "input[0].role"),
        ([{"role": "user"}], "input[0].content"),
        ([{"role": "user", "content": [5]}], "input[0].content[0]"),
        ([{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].text"),
        (
            [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}],
            "input[0].content[0]",
        ),
        ([{"type": 5}], "input[0].type"),
        ([{"type": "item_reference", "id": "x"}], "input[0].type"),
        ([{"type": "web_search_call"}], "input[0].type"),
        ([{**CALL, "call_id": None}], "input[0].call_id"),
        ([{**CALL, "arguments": {}}], "input[0].arguments"),
        ([{**CALL, "name": None}], "input[0].name"),
        ([{**RESULT, "call_id": 5}], "input[0].call_id"),
        ([{**RESULT, "output": {}}], "input[0].output"),
        ([{"type": "reasoning", "summary": "x"}], "input[0].summary"),
        ([{"type": "reasoning", "content": [{}]}], "input[0].content[0].text"),
        ([USER] * (LIMITS.max_messages + 1), "input"),
    ],
)
def test_bug_10_malformed_input_is_refused_at_its_place(items: Any, param: str) -> None:
    """BUG-10: a 400 that says which item and where."""
    error = refused(input=items)
    assert (error.status, error.param) == (400, param)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("conversation", "conv_1"),
        ("conversation", {"id": "conv_1"}),
        ("prompt", {"id": "pmpt_1"}),
        ("background", True),
        ("context_management", [{"type": "compaction"}]),
    ],
)
def test_what_needs_a_store_is_refused(field: str, value: Any) -> None:
    """The message says that the server is stateless."""
    error = refused(**{field: value})
    assert isinstance(error, UnsupportedParameter)
    assert error.param == field
    assert "stateless" in error.message


@pytest.mark.parametrize(
    ("field", "value"), [("store", True), ("truncation", "auto"), ("modalities", ["audio"])]
)
def test_other_effects_that_are_not_served_are_refused(field: str, value: Any) -> None:
    """By their names."""
    assert isinstance(refused(**{field: value}), UnsupportedParameter)
    assert refused(**{field: value}).param == field


def test_what_asks_for_nothing_is_accepted() -> None:
    """Client libraries send the values that change nothing."""
    neutral = {
        "store": False,
        "background": False,
        "previous_response_id": None,
        "truncation": "disabled",
        "include": ["reasoning.encrypted_content"],
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "stream_options": {"include_obfuscation": False},
        "prompt_cache_key": "k",
        "tools": [],
    }
    parsed = response(**neutral)
    plain = response()
    assert parsed.sampling == plain.sampling
    assert (parsed.messages, parsed.tools) == (plain.messages, plain.tools)
    assert parsed.response_format is None


def test_tools_and_their_choice_are_flat() -> None:
    """Names stand beside the type, in tools and in choices."""
    parsed = response(tools=TOOLS, parallel_tool_calls=False)
    assert parsed.tools == (
        Tool(name="f", parameters=SCHEMA, param="tools[0].parameters"),
        Tool(name="g", parameters=SCHEMA, param="tools[1].parameters"),
    )
    assert not parsed.parallel_tool_calls
    named = {"type": "function", "name": "g"}
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [named]}
    choices = [
        response(tools=TOOLS, tool_choice=given).tool_choice
        for given in (None, "none", "required", named, allowed)
    ]
    assert choices == [
        ToolChoice(),
        ToolChoice(mode="none"),
        ToolChoice(mode="required"),
        ToolChoice(mode="required", names=("g",), is_named=True),
        ToolChoice(mode="auto", names=("g",)),
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [*TOOLS, TOOLS[0]]}, "tools[2].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "h"}}, "tool_choice.name"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice.tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"tools": TOOLS, "tool_choice": 5}, "tool_choice"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"temperature": 3}, "temperature"),
        ({"model": 5}, "model"),
    ],
)
def test_malformed_fields_are_refused(fields: dict[str, Any], param: str) -> None:
    """As strict as chats, under the names of this API."""
    assert refused(**fields).param == param


def test_the_format_of_the_text() -> None:
    """The schema stands in the format itself."""
    given = {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}
    assert response(text={"format": given}).response_format == Constraint(
        kind="json_schema", source=orjson.dumps(SCHEMA).decode(), param="text.format.schema"
    )
    given = {"type": "json_object"}
    assert response(text={"format": given}).response_format == Constraint(
        kind="json_object", param="text.format"
    )


def test_sampling_and_reasoning() -> None:
    """Limits, log probabilities and reasoning under their names here."""
    parsed = response(
        max_output_tokens=5, temperature=0, top_p=0.5, reasoning={"effort": "low"}, stream=True
    )
    assert (parsed.sampling.max_tokens, parsed.sampling.temperature) == (5, 0)
    assert parsed.sampling.top_p == 0.5
    assert parsed.reasoning == ReasoningOptions(enabled=True, effort="low")
    assert parsed.stream
    assert (parsed.n, parsed.best_of) == (1, 1)
    include = ["message.output_text.logprobs"]
    counts = [
        response(**fields).sampling.logprobs
        for fields in (
            {},
            {"include": include},
            {"include": include, "top_logprobs": 3},
            {"top_logprobs": 2},
            {"top_logprobs": 0},
        )
    ]
    assert counts == [None, 0, 3, 2, None]

"""Bodies of Anthropic's routes: what each field becomes, and what is refused in which words."""

from typing import Any

import orjson
import pytest

from provider_core.dialects.anthropic import parse_count, parse_create
from provider_core.dialects.chat_request import ChatRequest, ReasoningOptions, ToolChoice
from provider_core.dialects.declared_tools import MAX_TOOLS
from provider_core.errors import InvalidRequest, UnsupportedParameter
from provider_core.settings import LimitSettings

LIMITS = LimitSettings()
LOOK = {"name": "look", "description": "d", "input_schema": {"type": "object"}}


def parse(**fields: Any) -> ChatRequest:
    """Parse a body with what it needs at least."""
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    return parse_create(body | fields, LIMITS)


def talk(*messages: Any, **fields: Any) -> list[dict[str, Any]]:
    """The messages that a template sees."""
    return parse(messages=list(messages), **fields).messages


def user(*blocks: Any) -> dict[str, Any]:
    """A user's turn of blocks."""
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    """An assistant's turn of blocks."""
    return {"role": "assistant", "content": list(blocks)}


def text(value: str) -> dict[str, Any]:
    """A block of text, marked to be cached, which changes nothing."""
    return {"type": "text", "text": value, "cache_control": {"type": "ephemeral"}}


def use(call_id: str, name: str = "look", **arguments: Any) -> dict[str, Any]:
    """A call that a model made."""
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def result(call_id: str, content: Any = "found", **fields: Any) -> dict[str, Any]:
    """What a call gave."""
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **fields}


def test_sampling_fields_and_their_defaults() -> None:
    """`max_tokens` as asked; nothing else changes by itself."""
    asked = parse(max_tokens=7, temperature=0, top_p=0.5, top_k=3, stop_sequences=["a", "b"])
    plain = parse()

    assert asked.sampling.max_tokens == 7
    assert (asked.sampling.temperature, asked.sampling.top_p, asked.sampling.top_k) == (0, 0.5, 3)
    assert asked.stop == ("a", "b")
    assert (plain.sampling.temperature, plain.sampling.top_p, plain.sampling.top_k) == (1, 1, 0)
    assert not plain.stream


def test_system_is_a_string_or_blocks_and_comes_first() -> None:
    """Blocks are lines of one message."""
    assert talk(user(text("hi")), system="be brief")[0] == {"role": "system", "content": "be brief"}
    assert talk(user(text("hi")), system=[text("a"), text("b")])[0]["content"] == "a\nb"


def test_a_system_message_may_stand_among_the_others() -> None:
    """As the newest types allow."""
    messages = talk(user(text("hi")), {"role": "system", "content": "now in French"})
    assert messages[1] == {"role": "system", "content": "now in French"}


def test_consecutive_turns_of_one_role_are_one() -> None:
    """Templates refuse two users in a row."""
    messages = talk(user(text("a")), {"role": "user", "content": "b"}, assistant(text("c")))
    assert [message["content"] for message in messages] == ["a\nb", "c"]


def test_bug_17_a_conversation_with_tools_keeps_its_order() -> None:
    """Calls, results with names and failures, and what the user says after them."""
    messages = talk(
        user(text("look twice")),
        assistant(text("I look"), use("c1", deep={"a": [1]}), use("c2")),
        user(result("c1"), result("c2", [text("no"), text("luck")], is_error=True), text("go on")),
    )

    assert [message["role"] for message in messages] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "user",
    ]
    calls = messages[1]["tool_calls"]
    assert messages[1]["content"] == "I look"
    assert [call["id"] for call in calls] == ["c1", "c2"]
    assert orjson.loads(calls[0]["function"]["arguments"]) == {"deep": {"a": [1]}}
    assert calls[1]["function"]["arguments"] == "{}"
    assert messages[2] == {
        "role": "tool",
        "tool_call_id": "c1",
        "content": "found",
        "name": "look",
    }
    assert messages[3]["content"] == "Error: no\nluck"
    assert messages[4] == {"role": "user", "content": "go on"}


def test_images_are_parts_of_the_users_turn() -> None:
    """Of whatever kind, in their order, over several blocks and messages."""
    first = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    second = {"type": "url", "url": "https://example.com/a.png"}
    parsed = parse(
        messages=[
            user(text("a"), {"type": "image", "source": first}, text("b")),
            user({"type": "image", "source": second}),
            assistant(text("c")),
            user(text("d")),
        ]
    )
    assert parsed.messages[0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image"},
        {"type": "text", "text": "b"},
        {"type": "image"},
    ]
    assert parsed.messages[2]["content"] == "d"
    assert [(image.url, image.param) for image in parsed.images] == [
        ("data:image/png;base64,AAAA", "messages.0.content.1"),
        ("https://example.com/a.png", "messages.1.content.0"),
    ]


def test_a_result_may_be_empty() -> None:
    """Absent, null and an empty list are the empty text."""
    turns = [assistant(use("c1")), user({"type": "tool_result", "tool_use_id": "c1"})]
    assert talk(user(text("a")), *turns)[-1]["content"] == ""
    assert talk(user(text("a")), turns[0], user(result("c1", [])))[-1]["content"] == ""


def test_thinking_comes_back_and_redacted_thinking_is_dropped() -> None:
    """Whatever its signature."""
    thinking = {"type": "thinking", "thinking": "hm", "signature": "anything"}
    redacted = {"type": "redacted_thinking", "data": "x"}
    messages = talk(user(text("a")), assistant(thinking, redacted, text("b")), user(text("c")))

    assert messages[1] == {"role": "assistant", "content": "b", "reasoning_content": "hm"}


def test_a_document_of_text_is_read() -> None:
    """With its title and context before it."""
    plain = {"type": "document", "title": "T", "source": {"type": "text", "data": "body"}}
    parts = {"type": "document", "source": {"type": "content", "content": [text("a"), text("b")]}}

    assert talk(user(plain, parts))[0]["content"] == "T\nbody\na\nb"


@pytest.mark.parametrize(
    ("last", "is_continued"),
    [
        (assistant(text("Sure: ")), True),
        ({"role": "assistant", "content": ""}, False),
        (assistant(), False),
        (assistant(use("c1")), False),
        (assistant({"type": "redacted_thinking", "data": "x"}), False),
        (user(text("and?")), False),
    ],
)
def test_a_last_turn_of_the_assistant_is_continued(
    last: dict[str, Any], *, is_continued: bool
) -> None:
    """If it says anything."""
    parsed = parse(messages=[user(text("hi")), last])

    assert parsed.continue_final_message is is_continued
    assert parsed.messages[-1].get("content") != ""


def test_a_turn_that_nobody_can_read_is_empty() -> None:
    """And may be all there is."""
    redacted = {"type": "redacted_thinking", "data": "x"}
    assert talk(assistant(redacted)) == [{"role": "assistant", "content": None}]


def test_tools_become_functions() -> None:
    """Name, description, schema and strictness; what else stands there is a hint."""
    (tool,) = parse(tools=[LOOK | {"strict": True, "cache_control": None}]).tools

    assert tool.definition["function"] == {
        "name": "look",
        "description": "d",
        "parameters": {"type": "object"},
    }
    assert tool.strict
    assert tool.param == "tools.0.input_schema"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ({"type": "auto"}, ToolChoice()),
        ({"type": "none"}, ToolChoice(mode="none")),
        ({"type": "any"}, ToolChoice(mode="required")),
        (
            {"type": "tool", "name": "look"},
            ToolChoice(mode="required", names=("look",), is_named=True),
        ),
    ],
)
def test_tool_choice(choice: Any, expected: ToolChoice) -> None:
    """Its four types; several calls unless they are disabled."""
    assert parse(tools=[LOOK], tool_choice=choice).tool_choice == expected
    if choice is not None:
        parsed = parse(tools=[LOOK], tool_choice={**choice, "disable_parallel_tool_use": True})
        assert not parsed.parallel_tool_calls
    assert parse(tools=[LOOK], tool_choice=choice).parallel_tool_calls


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        (None, {}),
        ({"type": "disabled"}, {"enabled": False}),
        ({"type": "adaptive"}, {}),
        ({"type": "adaptive", "display": "omitted"}, {"exclude": True}),
        (
            {"type": "enabled", "budget_tokens": 2000, "display": "summarized"},
            {"enabled": True, "max_tokens": 2000},
        ),
    ],
)
def test_thinking(thinking: Any, expected: dict[str, Any]) -> None:
    """Its types, and errors that name it."""
    assert parse(thinking=thinking).reasoning == ReasoningOptions(param="thinking", **expected)


def test_effort_steers_thinking_and_asks_for_none() -> None:
    """A hint that a model which does not think may ignore."""
    config = {"effort": "low"}
    enabled = {"type": "enabled", "budget_tokens": 9}

    assert parse(output_config=config).reasoning == ReasoningOptions(param="thinking")
    assert parse(output_config=config, thinking=enabled).reasoning.effort == "low"


@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_a_schema_constrains_the_answer(field: str) -> None:
    """Under its name, and under the one that it had before."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    form = {"type": "json_schema", "schema": schema}
    constraint = parse(**{field: {"format": form} if field == "output_config" else form})

    assert constraint.response_format is not None
    assert constraint.response_format.kind == "json_schema"
    assert orjson.loads(constraint.response_format.source) == schema
    assert constraint.response_format.param.startswith(field)


def test_the_user_is_cut() -> None:
    """To what a usage line may hold."""
    assert parse(metadata={"user_id": "u" * 999}).user == "u" * 128
    assert parse(metadata={}).user is None


def test_counting_needs_no_limit_and_ignores_what_only_sampling_reads() -> None:
    """The prompt is parsed as it is for an answer."""
    body = {"model": "m", "messages": [user(text("hi"))], "tools": [LOOK], "system": "s"}
    counted = parse_count({**body, "max_tokens": "ignored"}, LIMITS)

    assert counted.messages == parse(**body).messages
    assert counted.tools == parse(**body).tools


def test_unknown_fields_are_ignored() -> None:
    """At every level."""
    message = {**user({**text("hi"), "new": 1}), "new": 2}
    assert talk(message, new=3, service_tier="auto", speed="fast") == talk(user(text("hi")))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": 2.0**64}, "max_tokens"),
    ({"model": ""}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": ["hi"]}, "messages.0"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [user("hi")]}, "messages.0.content.0"),
    ({"messages": [user({"text": "hi"})]}, "messages.0.content.0.type"),
    ({"messages": [user({"type": "text"})]}, "messages.0.content.0.text"),
    ({"messages": [user({"type": "text", "text": 1})]}, "messages.0.content.0.text"),
    ({"messages": [user(result("", "x"))]}, "messages.0.content.0.tool_use_id"),
    ({"messages": [user(result("c", 5))]}, "messages.0.content.0.content"),
    ({"messages": [user(result("c", is_error="no"))]}, "messages.0.content.0.is_error"),
    ({"messages": [assistant(use("c", "two words"))]}, "messages.0.content.0.name"),
    ({"messages": [assistant(use("c") | {"input": "{}"})]}, "messages.0.content.0.input"),
    ({"messages": [user()]}, "messages.0.content"),
    ({"messages": [user({"type": "image"})]}, "messages.0.content.0.source"),
    (
        {"messages": [user({"type": "image", "source": {"type": "base64", "data": 5}})]},
        "messages.0.content.0.source.media_type",
    ),
    (
        {"messages": [user({"type": "image", "source": {"type": "url"}})]},
        "messages.0.content.0.source.url",
    ),
    ({"system": 5}, "system"),
    ({"system": [{"type": "text", "text": None}]}, "system.0.text"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": -1}, "top_k"),
    ({"stop_sequences": "a"}, "stop_sequences"),
    ({"stop_sequences": [""]}, "stop_sequences"),
    ({"stop_sequences": ["a"] * 17}, "stop_sequences"),
    ({"stop_sequences": ["a" * 257]}, "stop_sequences"),
    ({"tools": [{"name": "look"}]}, "tools.0.input_schema"),
    ({"tools": [LOOK | {"input_schema": []}]}, "tools.0.input_schema"),
    ({"tools": [LOOK | {"name": "a" * 65}]}, "tools.0.name"),
    ({"tools": [LOOK | {"description": 1}]}, "tools.0.description"),
    ({"tools": [LOOK, LOOK]}, "tools"),
    ({"tools": [LOOK | {"name": f"t{i}"} for i in range(MAX_TOOLS + 1)]}, "tools"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tools": [LOOK], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name"),
    ({"tools": [LOOK], "tool_choice": {"type": "sometimes"}}, "tool_choice.type"),
    ({"tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}}, "tool_choice.disable"),
    ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "between_tools"}}, "thinking.type"),
    ({"output_config": {"effort": "enormous"}}, "output_config.effort"),
    ({"output_config": {"format": {"type": "json"}}}, "output_config.format.type"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ({"metadata": {"user_id": 5}}, "metadata.user_id"),
]


@pytest.mark.parametrize(("fields", "param"), BAD, ids=str)
def test_bug_10_a_bad_field_is_named_as_this_dialect_spells_it(
    fields: dict[str, Any], param: str
) -> None:
    """In `param` and in the message, which is all that clients see."""
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.param is not None
    assert caught.value.param.startswith(param)
    assert caught.value.param in caught.value.message


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    (
        {"messages": [user(text("a"), {"type": "image", "source": {"type": "file"}})]},
        "messages.0.content.1.source",
    ),
    ({"messages": [assistant({"type": "image"})]}, "messages.0.content.0"),
    (
        {"messages": [user({"type": "document", "source": {"type": "base64"}})]},
        "messages.0.content.0",
    ),
    ({"messages": [user({"type": "server_tool_use"})]}, "messages.0.content.0"),
    (
        {"messages": [user(result("c", [{"type": "image"}]))]},
        "messages.0.content.0.content.0",
    ),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0"),
    ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
    ({"container": "c"}, "container"),
    ({"inference_geo": "eu"}, "inference_geo"),
]


@pytest.mark.parametrize(("fields", "param"), UNSUPPORTED, ids=str)
def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """Rather than answered as if it had not been asked."""
    with pytest.raises(UnsupportedParameter) as caught:
        parse(**fields)
    assert caught.value.param == param
    assert param in caught.value.message


@pytest.mark.parametrize("field", ["mcp_servers", "container", "inference_geo", "tools"])
@pytest.mark.parametrize("value", [None, []])
def test_a_value_that_asks_nothing_is_fine(field: str, value: Any) -> None:
    """Libraries send such fields."""
    assert parse(**{field: value}) == parse()

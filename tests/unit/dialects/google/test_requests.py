"""Bodies of Google's routes: what each field becomes."""

from typing import Any

import orjson
import pytest

from provider_core.dialects.chat_request import ReasoningOptions, ToolChoice
from provider_core.dialects.google import parse_count, parse_generate
from tests.unit.dialects.google.bodies import (
    LIMITS,
    SCHEMA,
    TOOLS,
    answer,
    call,
    model,
    parse,
    user,
)


def test_config_and_its_defaults() -> None:
    """Every field by the name that libraries send."""
    asked = parse(
        config={
            "temperature": 0,
            "topP": 0.5,
            "topK": 40.0,
            "candidateCount": 2,
            "maxOutputTokens": 7,
            "stopSequences": ["a"],
            "seed": -1,
            "presencePenalty": 1,
            "frequencyPenalty": -1,
            "responseLogprobs": True,
            "logprobs": 3,
        }
    )
    plain = parse()

    assert (asked.sampling.temperature, asked.sampling.top_p, asked.sampling.top_k) == (0, 0.5, 40)
    assert (asked.n, asked.best_of, asked.stop, asked.sampling.max_tokens) == (2, 2, ("a",), 7)
    assert asked.sampling.seed == 2**64 - 1
    assert (asked.sampling.presence_penalty, asked.sampling.frequency_penalty) == (1, -1)
    assert asked.sampling.logprobs == 3
    assert (plain.n, plain.sampling.max_tokens, plain.sampling.logprobs) == (1, None, None)
    assert (plain.sampling.temperature, plain.sampling.top_p, plain.sampling.top_k) == (1, 1, 0)


def test_both_names_of_every_field_are_understood() -> None:
    """At every level, and single objects in place of lists."""
    camel = parse(
        [user({"text": "hi"}), model(call()), user(answer({"a": 1}))],
        systemInstruction={"parts": [{"text": "s"}]},
        config={"maxOutputTokens": 5, "thinkingConfig": {"thinkingBudget": 9}},
        tools=TOOLS,
        toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["look"]}},
    )
    snake = parse_generate(
        {
            "contents": [
                {"parts": {"text": "hi"}},
                {"role": "model", "parts": {"function_call": {"name": "look"}}},
                {"parts": {"function_response": {"name": "look", "response": {"a": 1}}}},
            ],
            "system_instruction": {"parts": {"text": "s"}},
            "generation_config": {
                "max_output_tokens": 5,
                "thinking_config": {"thinking_budget": 9},
            },
            "tools": {"function_declarations": TOOLS[0]["functionDeclarations"]},
            "tool_config": {
                "function_calling_config": {"mode": "any", "allowed_function_names": ["look"]}
            },
        },
        "m",
        LIMITS,
        stream=False,
    )
    assert snake == camel


def test_a_conversation_of_text() -> None:
    """Instructions first; a model's pieces are one message, a user's are lines."""
    messages = parse(
        [
            {"parts": [{"text": "a"}, {"text": "b"}]},
            user({"text": "c"}),
            model({"text": "d"}),
            model({"text": ""}, {"text": "e"}),
            user({"text": "f"}),
        ],
        systemInstruction="be brief",
    ).messages
    assert [(message["role"], message["content"]) for message in messages] == [
        ("system", "be brief"),
        ("user", "a\nb\nc"),
        ("assistant", "de"),
        ("user", "f"),
    ]


def test_bug_17_calls_without_ids_are_answered_in_order() -> None:
    """The oldest open call of a function first; the results as their names say."""
    messages = parse(
        [
            user({"text": "look"}),
            model({"text": "well"}, call(deep={"a": [1]}), call("see"), call()),
            user(answer({"output": "one"}, "look")),
            user(answer({"error": {"code": 5}}, "see"), answer({"rows": []}, "look")),
        ]
    ).messages
    calls = messages[1]["tool_calls"]

    assert messages[1]["content"] == "well"
    assert [item["function"]["name"] for item in calls] == ["look", "see", "look"]
    assert orjson.loads(calls[0]["function"]["arguments"]) == {"deep": {"a": [1]}}
    assert len({item["id"] for item in calls}) == 3
    assert [message["tool_call_id"] for message in messages[2:]] == [item["id"] for item in calls]
    assert [message["content"] for message in messages[2:]] == [
        "one",
        'Error: {"code":5}',
        '{"rows":[]}',
    ]
    assert messages[2]["name"] == "look"


def test_images_are_parts_of_the_users_turn() -> None:
    """Of whatever kind, in their order; base64 of either alphabet."""
    parsed = parse(
        [
            user({"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": "-_A"}}),
            user({"text": "b"}),
            user({"file_data": {"mime_type": "image/jpeg", "file_uri": "https://example.com/a"}}),
            model({"text": "c"}),
            user({"text": "d"}),
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
        ("data:image/png;base64,+/A=", "contents[0].parts[1].inlineData"),
        ("https://example.com/a", "contents[2].parts[0].fileData"),
    ]


def test_ids_that_are_there_are_kept() -> None:
    """In whatever order the results come."""
    messages = parse(
        [
            user({"text": "look"}),
            model(call(call_id="x"), call(call_id="y")),
            user(answer({}, call_id="y"), answer({}, call_id="x")),
        ]
    ).messages
    assert [item["id"] for item in messages[1]["tool_calls"]] == ["x", "y"]
    assert [message["tool_call_id"] for message in messages[2:]] == ["y", "x"]


def test_an_empty_id_is_none() -> None:
    """Of a call as of its result."""
    messages = parse(
        [
            user({"text": "look"}),
            model(call(call_id=""), call("see", call_id="")),
            user(answer({}, "see", call_id=""), answer({}, call_id="")),
        ]
    ).messages
    look, see = (item["id"] for item in messages[1]["tool_calls"])
    assert look != see
    assert [message["tool_call_id"] for message in messages[2:]] == [see, look]


@pytest.mark.parametrize("is_first", [True, False])
def test_ids_that_are_made_are_no_others(*, is_first: bool) -> None:
    """Whether the client's own, which may look the same, come before or after."""
    unnamed = [call(), call()]
    named = [call("see", call_id=f"call_{i}") for i in range(3)]
    messages = parse(
        [
            user({"text": "look"}),
            model(*(unnamed + named if is_first else named + unnamed)),
            user(*(answer({}, "see", call_id=f"call_{i}") for i in range(3)), answer({})),
        ]
    ).messages
    ids: dict[str, list[str]] = {"look": [], "see": []}
    for item in messages[1]["tool_calls"]:
        ids[item["function"]["name"]].append(item["id"])
    assert len({*ids["look"], *ids["see"]}) == 5
    answered = [message["tool_call_id"] for message in messages[2:]]
    assert answered == [*ids["see"], ids["look"][0]]


def test_thoughts_come_back_and_signatures_are_not_read() -> None:
    """A part that is nothing but a signature says nothing."""
    messages = parse(
        [
            user({"text": "a"}),
            model(
                {"text": "hm", "thought": True},
                {"text": "b", "thoughtSignature": "c2ln"},
                {"thoughtSignature": "c2ln"},
            ),
            user({"text": "c"}),
        ]
    ).messages
    assert messages[1] == {"role": "assistant", "content": "b", "reasoning_content": "hm"}


@pytest.mark.parametrize(
    ("last", "is_continued"),
    [
        (model({"text": "Sure: "}), True),
        (model({"text": ""}), False),
        ({"role": "model", "parts": []}, False),
        ({"role": "model"}, False),
        (model(call()), False),
        (model({"thoughtSignature": "c2ln"}), False),
        (user({"text": "and?"}), False),
    ],
)
def test_a_last_turn_of_the_model_is_continued(last: Any, *, is_continued: bool) -> None:
    """If it says anything."""
    parsed = parse([user({"text": "hi"}), last])

    assert parsed.continue_final_message is is_continued
    assert parsed.messages[-1].get("content") or "tool_calls" in parsed.messages[-1]


def test_tools_become_functions() -> None:
    """Schemas of either kind, and none."""
    json_schema = {"type": "object", "properties": {"propertyOrdering": {"type": "string"}}}
    declared = parse(tools=[*TOOLS, {"functionDeclarations": [
        {"name": "other", "parametersJsonSchema": json_schema}
    ]}]).tools  # fmt: skip

    assert [tool.name for tool in declared] == ["look", "no.args:v1", "other"]
    assert declared[0].parameters == {"type": "object"}
    assert declared[0].description == "d"
    assert declared[1].parameters is None
    assert declared[2].parameters == json_schema
    assert declared[2].param == "tools[1].functionDeclarations[0].parametersJsonSchema"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ToolChoice()),
        ({"mode": "AUTO"}, ToolChoice()),
        ({"mode": "none"}, ToolChoice(mode="none")),
        ({"mode": "ANY"}, ToolChoice(mode="required")),
        (
            {"mode": "ANY", "allowedFunctionNames": ["look"]},
            ToolChoice(mode="required", names=("look",), is_named=True),
        ),
        (
            {"mode": "VALIDATED", "allowedFunctionNames": ["look", "no.args:v1"]},
            ToolChoice(names=("look", "no.args:v1")),
        ),
    ],
)
def test_modes_of_calling(config: Any, expected: ToolChoice) -> None:
    """Which functions may, or must, be called."""
    parsed = parse(tools=TOOLS, toolConfig={"functionCallingConfig": config})
    assert parsed.tool_choice == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {"exclude": True}),
        ({"includeThoughts": True}, {}),
        ({"thinkingBudget": 0}, {"enabled": False, "exclude": True}),
        ({"thinkingBudget": -1, "includeThoughts": True}, {}),
        ({"thinkingBudget": 99}, {"enabled": True, "max_tokens": 99, "exclude": True}),
        ({"thinkingLevel": "LOW"}, {"enabled": True, "effort": "low", "exclude": True}),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, {"exclude": True}),
    ],
)
def test_thinking(config: Any, expected: dict[str, Any]) -> None:
    """Thoughts are shown to those who ask; a budget of 0 is none, of -1 the model's own."""
    expected_options = ReasoningOptions(param="generationConfig.thinkingConfig", **expected)
    assert parse(config={"thinkingConfig": config}).reasoning == expected_options


@pytest.mark.parametrize(
    ("config", "kind", "source"),
    [
        ({}, None, None),
        ({"responseMimeType": "text/plain"}, None, None),
        ({"responseMimeType": "application/json"}, "json_object", None),
        (
            {"responseMimeType": "application/json", "responseSchema": SCHEMA},
            "json_schema",
            {"type": "object", "properties": {"a": {"type": "string"}}},
        ),
        ({"responseJsonSchema": {"type": "array"}}, "json_schema", {"type": "array"}),
        (
            {
                "responseMimeType": "text/x.enum",
                "responseSchema": {"type": "STRING", "enum": ["a", "b"]},
            },
            "choice",
            ["a", "b"],
        ),
    ],
)
def test_the_form_of_the_answer(config: Any, kind: str | None, source: Any) -> None:
    """JSON with and without a schema, one of some words, or anything."""
    constraint = parse(config=config).response_format

    assert (constraint.kind if constraint else None) == kind
    if constraint is not None and source is not None:
        assert orjson.loads(constraint.source) == source
        assert constraint.param.startswith("generationConfig.response")


def test_counting_takes_contents_or_a_whole_request() -> None:
    """Either way the same prompt as an answer would have."""
    body = {"contents": [user({"text": "hi"})], "tools": TOOLS}
    whole = {"generateContentRequest": {"model": "models/m", **body}}

    assert parse_count(body, "m", LIMITS) == parse(body["contents"], tools=TOOLS)
    assert parse_count(whole, "m", LIMITS) == parse(body["contents"], tools=TOOLS)


def test_unknown_fields_and_hints_are_ignored() -> None:
    """At every level."""
    hints = {"safetySettings": [{"category": "x"}], "labels": {"a": "b"}, "new": 1}
    config = {"mediaResolution": "HIGH", "responseModalities": ["TEXT"], "new": 1}
    content = {**user({"text": "hi", "new": 1}), "new": 1}
    assert parse([content], config=config, **hints) == parse()

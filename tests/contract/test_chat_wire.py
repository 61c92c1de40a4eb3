"""Chats of every kind over the wire: streamed, whole, under both paths, with strict readers.

A scripted engine says what a model would, token by token, one byte each; everything above it is the
real server.
"""

from typing import Any

import openai.types.chat as sdk
import orjson
import pytest

from tests.contract.chat_scenarios import (
    NAMED,
    OPENED,
    OPENED_SCENARIOS,
    ROME,
    SCENARIOS,
    WITH_TOOLS,
    Scenario,
    calling,
    request_of,
)
from tests.contract.wire_checker import check_reply, check_same
from tests.serving import HERMES, Serving, saying, serving
from tests.sse_checker import CheckedStream, check_stream, split_events


async def stream_of(
    served: Serving, path: str, scenario: Scenario, *, include_usage: bool = False
) -> CheckedStream:
    """Stream one scenario's request, and read it strictly, as OpenAI's types do, too."""
    fields = {"stream": True, "stream_options": {"include_usage": include_usage}}
    response = await served.post(path, request_of(scenario) | fields)
    body = await response.read()
    assert response.status == 200, body
    assert response.headers["Content-Type"].startswith("text/event-stream")
    for payload in split_events(body)[0]:
        chunk = orjson.loads(payload)
        for choice in chunk["choices"]:
            if "function_call" in choice["delta"]:  # the package's older type wants a name
                choice["delta"].pop("function_call")
        sdk.ChatCompletionChunk.model_validate_json(orjson.dumps(chunk), strict=True)
    return check_stream(
        body,
        num_choices=scenario.num_choices,
        include_usage=include_usage,
        openrouter=path.startswith("/api/"),
    )


async def reply_of(served: Serving, path: str, scenario: Scenario) -> dict[str, Any]:
    """The whole reply to one scenario's request, read strictly."""
    response = await served.post(path, request_of(scenario))
    body = await response.read()
    assert response.status == 200, body
    sdk.ChatCompletion.model_validate_json(body, strict=True)
    reply: dict[str, Any] = orjson.loads(body)
    openrouter = path.startswith("/api/")
    check_reply(reply, num_choices=scenario.num_choices, openrouter=openrouter)
    return reply


@pytest.mark.parametrize("name", SCENARIOS)
async def test_streamed_and_whole_are_well_formed_and_say_the_same(name: str) -> None:
    """Contract 14.3 and 14.4, BUG-01, 04, 05, 13, 18, 20, 31, 32: every chunk, every variant."""
    await check_scenario(SCENARIOS[name], HERMES)


@pytest.mark.parametrize("name", OPENED_SCENARIOS)
async def test_bug_30_reasoning_that_the_template_opens_stays_apart(name: str) -> None:
    """BUG-22, BUG-30: it is free of what binds the answer, and never in the wrong field."""
    await check_scenario(OPENED_SCENARIOS[name], OPENED)


async def check_scenario(scenario: Scenario, chat_template: str) -> None:
    """Ask one scenario's request in every variant, and compare what comes with what must."""
    async with serving(saying(scenario.says), chat_template=chat_template) as served:
        for path in ("/v1/chat/completions", "/api/v1/chat/completions"):
            reply = await reply_of(served, path, scenario)
            for include_usage in (False, True):
                stream = await stream_of(served, path, scenario, include_usage=include_usage)
                check_same(stream, reply)
                said = [scenario.text] * scenario.num_choices
                assert list(stream.texts.values()) == said
                assert stream.reasonings.get(0) == scenario.reasoning
                calls = [(call["name"], call["arguments"]) for call in stream.calls.get(0, [])]
                assert calls == scenario.calls
                assert set(stream.finish_reasons.values()) == {scenario.reason}


@pytest.mark.parametrize(
    "name",
    ["log probabilities", "reasoning with log probabilities", "calls with log probabilities"],
)
async def test_bug_18_every_completion_token_has_an_entry(name: str) -> None:
    """BUG-18, BUG-09: as many entries as tokens; joined, their bytes are what the model wrote."""
    scenario = SCENARIOS[name]
    async with serving(saying(scenario.says), chat_template=HERMES) as served:
        reply = await reply_of(served, "/v1/chat/completions", scenario)
    content = reply["choices"][0]["logprobs"]["content"]
    assert len(content) == reply["usage"]["completion_tokens"]
    spelled = bytes(byte for entry in content for byte in entry["bytes"])
    assert spelled.decode() == scenario.says


async def test_bug_30_reasoning_is_counted_in_the_completion() -> None:
    """BUG-18, BUG-30: hidden or not, it is a part of the completion's tokens."""
    counts = []
    for name in ("hidden reasoning", "reasoning with log probabilities"):
        scenario = SCENARIOS[name]
        async with serving(saying(scenario.says), chat_template=HERMES) as served:
            reply = await reply_of(served, "/v1/chat/completions", scenario)
        usage = reply["usage"]
        counts.append(usage["completion_tokens_details"]["reasoning_tokens"])
        assert usage["completion_tokens"] == len(scenario.says) + 1
    assert counts[0] == counts[1]
    assert counts[0] >= len("Hm")


async def test_the_alias_of_reasoning_is_a_setting() -> None:
    """With it both names say the same, streamed and whole."""
    scenario = SCENARIOS["reasoning"]
    async with serving(
        saying(scenario.says), chat_template=HERMES, server={"reasoning_content": True}
    ) as served:
        reply = await reply_of(served, "/v1/chat/completions", scenario)
        stream = await stream_of(served, "/v1/chat/completions", scenario)
    assert reply["choices"][0]["message"]["reasoning_content"] == scenario.reasoning
    deltas = [chunk["choices"][0]["delta"] for chunk in stream.chunks]
    aliased = "".join(delta.get("reasoning_content", "") for delta in deltas)
    assert aliased == stream.reasonings[0] == scenario.reasoning


BROKEN = {"type": "object", "properties": {"a": {"type": "strin"}}}
REQUIRED = {**WITH_TOOLS, "tool_choice": "required"}
IN_MARKUP = len("<tool_call>") - 2
IN_ARGUMENTS = len("<tool_call>\n") + len(ROME) - len('Rome"}}')
ENDS: list[tuple[str, dict[str, Any], str, str]] = [
    ("no tools, complete", {}, "Hello!", "stop"),
    ("no tools, cut", {"max_tokens": 3}, "Hello!", "length"),
    ("no tools, stop string", {"stop": "l"}, "Hello!", "stop"),
    *(
        (f"{name}, {what}", {**fields, **more}, says, reason)
        for name, fields in (("auto", WITH_TOOLS), ("required", REQUIRED), ("named", NAMED))
        for what, more, says, reason in (
            ("complete", {}, calling(ROME), "tool_calls"),
            ("cut in markup", {"max_tokens": IN_MARKUP}, calling(ROME), "length"),
            ("cut in arguments", {"max_tokens": IN_ARGUMENTS}, calling(ROME), "length"),
            ("stop string in the call", {"stop": ["Rome", "}"]}, calling(ROME), "tool_calls"),
        )
    ),
    ("auto, text", WITH_TOOLS, "Hello!", "stop"),
    ("auto, cut text", {**WITH_TOOLS, "max_tokens": 3}, "Hello!", "length"),
    ("auto, stop string", {**WITH_TOOLS, "stop": "l"}, f"Hello! {calling(ROME)}", "stop"),
]


@pytest.mark.parametrize(("name", "fields", "says", "reason"), ENDS, ids=[end[0] for end in ENDS])
async def test_bug_05_the_reason_says_how_it_ended(
    name: str, fields: dict[str, Any], says: str, reason: str
) -> None:
    """BUG-05: every choice of tools with every end, streamed and whole, in the client's words."""
    scenario = Scenario(says, fields)
    async with serving(saying(says), chat_template=HERMES) as served:
        reply = await reply_of(served, "/v1/chat/completions", scenario)
        stream = await stream_of(served, "/v1/chat/completions", scenario)
    check_same(stream, reply)
    assert stream.finish_reasons == {0: reason}
    # What only begins like a call was none: it is text, as it would be if the text went on.
    assert stream.texts[0] == calling(ROME)[:IN_MARKUP] or "<" not in stream.texts[0]
    if "arguments" in name:
        assert stream.calls[0][0]["arguments"] == '{"city": "'


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "f", "strict": True, "parameters": BROKEN},
                    }
                ]
            },
            "tools[0].function.parameters/properties/a/type",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": BROKEN},
                }
            },
            "response_format.json_schema.schema/properties/a/type",
        ),
        ({"structured_outputs": {"json": BROKEN}}, "structured_outputs.json/properties/a/type"),
        ({"guided_regex": "(a"}, "guided_regex"),
    ],
)
async def test_bug_10_what_cannot_be_enforced_is_refused_at_its_place(
    fields: dict[str, Any], param: str, *, stream: bool
) -> None:
    """BUG-10, BUG-11, S1: before anything is generated, with the schema's own pointer."""
    async with serving(saying("Hello!"), chat_template=HERMES) as served:
        reply = await served.chat(stream=stream, **fields)
        answer = (await reply.json())["error"]
        assert served.usage.events == []
    assert (reply.status, answer["param"], answer["code"]) == (400, param, "invalid_schema")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_grammar": 'start: "a"'}, "guided_grammar"),
        ({"structured_outputs": {"grammar": 'start: "a"'}}, "structured_outputs.grammar"),
        (
            {"response_format": {"type": "grammar", "grammar": 'start: "a"'}},
            "response_format.grammar",
        ),
    ],
)
async def test_grammars_of_clients_are_not_served_by_default(
    fields: dict[str, Any], param: str
) -> None:
    """They are where the provider says so."""
    async with serving(saying("Hello!"), chat_template=HERMES) as served:
        reply = await served.chat(**fields)
        answer = (await reply.json())["error"]
    assert (reply.status, answer["param"]) == (400, param)
    assert answer["code"] == "unsupported_parameter"


@pytest.mark.parametrize(
    "fields",
    [WITH_TOOLS, {"functions": [{"name": "f"}]}, {"reasoning": {"effort": "low"}}],
    ids=["tools", "functions", "reasoning"],
)
async def test_a_model_that_cannot_says_so(fields: dict[str, Any]) -> None:
    """A model whose template knows neither tools nor reasoning refuses them by name."""
    async with serving(saying("Hello!")) as served:
        reply = await served.chat(**fields)
        answer = (await reply.json())["error"]
    assert (reply.status, answer["code"]) == (400, "unsupported_parameter")
    assert answer["param"] == next(iter(fields))

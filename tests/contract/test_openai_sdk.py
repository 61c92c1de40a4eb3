"""The openai package's helpers for tools and documents, unchanged, against the real server.

The helpers are strict where `create` is not: they join deltas, parse arguments and validate them by
the caller's own pydantic models, and raise on whatever does not fit.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.serving import HERMES, KEY, Serving, saying, serving

MESSAGES: Any = [{"role": "user", "content": "hi"}]  # the SDK types each role on its own
CALL = '<tool_call>\n{"name": "Weather", "arguments": {"city":"Rome","days":2}}\n</tool_call>'
TWO_CALLS = CALL + '\n<tool_call>\n{"name": "Now", "arguments": {}}\n</tool_call>'
DOCUMENT = '{"city":"Rome","days":2}'
USAGE: Any = {"include_usage": True}


class Weather(BaseModel):
    """The arguments of a tool, and a document."""

    city: str
    days: int


class Now(BaseModel):
    """A tool without arguments."""


TOOLS: Any = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Now)]


@asynccontextmanager
async def client_of(text: str) -> AsyncIterator[tuple[openai.AsyncOpenAI, Serving]]:
    """A client of a server whose model always says one text."""
    async with (
        serving(saying(text), chat_template=HERMES) as served,
        openai.AsyncOpenAI(base_url=served.url + "/v1", api_key=KEY, max_retries=0) as client,
    ):
        yield client, served


async def test_parse_gives_arguments_as_the_callers_models() -> None:
    """Strict tools: names and arguments fit, whole and from the streaming helper."""
    async with client_of(TWO_CALLS) as (client, _):
        whole = await client.chat.completions.parse(
            model="test-model", messages=MESSAGES, tools=TOOLS
        )
        async with client.chat.completions.stream(
            model="test-model", messages=MESSAGES, tools=TOOLS, stream_options=USAGE
        ) as stream:
            done = [
                event.parsed_arguments
                async for event in stream
                if event.type == "tool_calls.function.arguments.done"
            ]
            streamed = await stream.get_final_completion()
    for reply in (whole, streamed):
        choice = reply.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert [call.function.parsed_arguments for call in choice.message.tool_calls or []] == [
            Weather(city="Rome", days=2),
            Now(),
        ]
    assert done == [Weather(city="Rome", days=2), Now()]
    assert streamed.usage == whole.usage


async def test_parse_gives_the_document_as_the_callers_model() -> None:
    """A schema made of a pydantic model binds the text, streamed or whole."""
    async with client_of(DOCUMENT) as (client, _):
        whole = await client.chat.completions.parse(
            model="test-model", messages=MESSAGES, response_format=Weather
        )
        async with client.chat.completions.stream(
            model="test-model", messages=MESSAGES, response_format=Weather
        ) as stream:
            partial = [event.delta async for event in stream if event.type == "content.delta"]
            streamed = await stream.get_final_completion()
    for reply in (whole, streamed):
        assert reply.choices[0].message.parsed == Weather(city="Rome", days=2)
    assert "".join(partial) == DOCUMENT


async def test_bug_17_a_conversation_with_tools_over_three_turns() -> None:
    """BUG-17: what the package returned goes back as it is, and the model reads its own syntax."""
    prompts: list[str] = []
    async with client_of(TWO_CALLS) as (client, served):
        model: Any = served.server.models.find("test-model")
        template = model.chat_template
        render = template.render

        def recorded(*args: Any, **options: Any) -> Any:
            prompt = render(*args, **options)
            prompts.append(prompt.text)
            return prompt

        template.render = recorded
        history = list(MESSAGES)
        for turn in range(3):
            reply = await client.chat.completions.create(
                model="test-model", messages=history, tools=TOOLS
            )
            message = reply.choices[0].message
            assert message.tool_calls is not None
            history.append(message.model_dump(exclude_none=turn == 0))
            history += [
                {"role": "tool", "tool_call_id": call.id, "content": f"result {turn}"}
                for call in reversed(message.tool_calls)
            ]
    last = prompts[-1]
    assert last.count('<tool_call>\n{"name": "Weather", "arguments": {"city": "Rome"') == 2
    assert last.count('{"name": "Now", "arguments": {}}') == 2
    assert [last.count(f"result {turn}") for turn in range(3)] == [2, 2, 0]
    assert last.index("result 0") < last.index("result 1")


async def test_raw_answers_have_the_headers_clients_log() -> None:
    """Request and generation ids, whole or streamed."""
    async with client_of("Hello!") as (client, _):
        raw = await client.chat.completions.with_raw_response.create(
            model="test-model", messages=MESSAGES
        )
        assert raw.request_id
        assert raw.headers["x-generation-id"] == raw.parse().id
        async with client.chat.completions.with_streaming_response.create(
            model="test-model", messages=MESSAGES, stream=True
        ) as streamed:
            assert streamed.headers["x-request-id"]
            assert streamed.headers["x-generation-id"]
            assert streamed.headers["content-type"].startswith("text/event-stream")
            await streamed.read()


async def test_the_older_functions_still_work() -> None:
    """One `function_call`, joined from its deltas, with the reason of its kind."""
    functions: Any = [{"name": "Weather", "parameters": Weather.model_json_schema()}]
    async with client_of(CALL) as (client, _):
        reply = await client.chat.completions.create(
            model="test-model", messages=MESSAGES, functions=functions
        )
        chunks = [
            chunk.choices[0]
            async for chunk in await client.chat.completions.create(
                model="test-model", messages=MESSAGES, functions=functions, stream=True
            )
        ]
    call = reply.choices[0].message.function_call
    assert call is not None
    assert (call.name, Weather.model_validate_json(call.arguments).city) == ("Weather", "Rome")
    pieces = [chunk.delta.function_call for chunk in chunks if chunk.delta.function_call]
    assert [piece.name for piece in pieces if piece.name] == ["Weather"]
    assert "".join(piece.arguments or "" for piece in pieces) == call.arguments
    assert {reply.choices[0].finish_reason, chunks[-1].finish_reason} == {"function_call"}


@pytest.mark.parametrize("stream", [False, True])
async def test_responses_parse_calls_and_documents(*, stream: bool) -> None:
    """The Responses API's helpers, whole and streamed."""
    tools: Any = [openai.pydantic_function_tool(Weather)]
    flat: Any = [{"type": "function", **tool["function"]} for tool in tools]
    async with client_of(CALL) as (client, _):
        if stream:
            async with client.responses.stream(
                model="test-model", input="hi", tools=flat
            ) as events:
                async for _event in events:
                    pass
                reply: Any = await events.get_final_response()
        else:
            reply = await client.responses.parse(model="test-model", input="hi", tools=flat)
    (call,) = reply.output
    assert (call.type, call.name, call.status) == ("function_call", "Weather", "completed")
    assert Weather.model_validate_json(call.arguments) == Weather(city="Rome", days=2)
    async with client_of(DOCUMENT) as (client, _):
        if stream:
            async with client.responses.stream(
                model="test-model", input="hi", text_format=Weather
            ) as documents:
                reply = await documents.get_final_response()
        else:
            reply = await client.responses.parse(
                model="test-model", input="hi", text_format=Weather
            )
    assert reply.output_parsed == Weather(city="Rome", days=2)


async def test_responses_replay_calls_and_reasoning() -> None:
    """Output items go back as input, with the result of the call behind them."""
    async with client_of(f"<think>Hm</think>{CALL}") as (client, _):
        tools: Any = [{"type": "function", "name": "Weather", "parameters": {"type": "object"}}]
        first = await client.responses.create(model="test-model", input="hi", tools=tools)
        kinds = [item.type for item in first.output]
        call: Any = first.output[-1]
        history: Any = [
            {"role": "user", "content": "hi"},
            *(item.model_dump(exclude_none=True) for item in first.output),
            {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
        ]
        second = await client.responses.create(model="test-model", input=history, tools=tools)
    assert kinds == ["reasoning", "function_call"]
    assert first.usage is not None
    assert first.usage.output_tokens_details.reasoning_tokens > 0
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens

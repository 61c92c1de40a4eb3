"""The anthropic package and the built-in model, end to end: what it says must be well-formed."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import jsonschema_rs
import pytest
from pydantic import BaseModel, Field

from provider_core import ModelRunner, ModelSpec
from provider_onnxruntime import load_model
from provider_starter import MODEL_DIR
from tests.serving import KEY, Serving, serving

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Rome", "Oslo"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER: Any = {"name": "get_weather", "description": "The weather", "input_schema": SCHEMA}
TIME: Any = {"name": "get_time", "description": "The time", "input_schema": {"type": "object"}}


def load(spec: ModelSpec) -> ModelRunner:
    """The built-in model's runner."""
    runner = load_model(spec, Path(spec.source))
    assert isinstance(runner, ModelRunner)
    return runner


@pytest.fixture
async def client() -> AsyncIterator[anthropic.AsyncAnthropic]:
    """A client of a server of the built-in model."""
    model = {"id": "test-model", "source": str(MODEL_DIR), "max_model_len": 2048}
    async with (
        serving(load, models=(model,)) as served,
        client_of(served) as client,
    ):
        yield client


def client_of(served: Serving) -> anthropic.AsyncAnthropic:
    """The SDK's client, as a user makes it."""
    return anthropic.AsyncAnthropic(base_url=served.url, api_key=KEY, max_retries=0)


def request(text: str, **fields: Any) -> Any:  # the SDK's arguments are of many types
    """A greedy request."""
    messages = [{"role": "user", "content": text}]
    return {
        "model": "test-model",
        "max_tokens": 80,
        "messages": messages,
        "extra_body": {"temperature": 0},
        **fields,
    }


async def test_a_stream_says_what_a_whole_message_says(client: anthropic.AsyncAnthropic) -> None:
    """The same text, reason and counts."""
    whole = await client.messages.create(**request("What is the capital of France?"))
    async with client.messages.stream(**request("What is the capital of France?")) as stream:
        streamed = await stream.get_final_message()
    counted = await client.messages.count_tokens(
        model="test-model", messages=request("What is the capital of France?")["messages"]
    )

    assert [block.to_dict() for block in streamed.content] == [
        block.to_dict() for block in whole.content
    ]
    assert whole.content[0].type == "text"
    assert whole.content[0].text
    assert streamed.stop_reason == whole.stop_reason
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    for usage in (whole.usage, streamed.usage):
        cached = usage.cache_read_input_tokens or 0
        assert usage.input_tokens + cached == counted.input_tokens


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "any"},
        {"type": "any", "disable_parallel_tool_use": True},
        {"type": "tool", "name": "get_weather"},
    ],
)
async def test_a_forced_call_has_a_valid_input(
    client: anthropic.AsyncAnthropic, choice: dict[str, Any]
) -> None:
    """Streamed and whole the same, of a tool that was offered, and the next turn takes it."""
    asked = request("How is the weather in Oslo?", tools=[WEATHER, TIME], tool_choice=choice)
    whole = await client.messages.create(**asked)
    async with client.messages.stream(**asked) as stream:
        streamed = await stream.get_final_message()
    calls = [block for block in whole.content if block.type == "tool_use"]

    assert whole.stop_reason == streamed.stop_reason == "tool_use"
    assert [call.input for call in calls] == [
        block.input for block in streamed.content if block.type == "tool_use"
    ]
    assert len({call.id for call in calls}) == len(calls) >= 1
    for call in calls:
        schema = {"get_weather": SCHEMA, "get_time": {"type": "object"}}[call.name]
        jsonschema_rs.validate(schema, call.input)
    if choice["type"] == "tool":
        assert [call.name for call in calls] == ["get_weather"]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "5"} for call in calls]
    turns = [*asked["messages"], whole.to_param(), {"role": "user", "content": results}]
    again = await client.messages.create(**{**asked, "messages": turns, "tool_choice": None})
    assert again.stop_reason in {"end_turn", "tool_use", "max_tokens"}


class Person(BaseModel):
    """What is asked for."""

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=150)


async def test_structured_output_is_parsed(client: anthropic.AsyncAnthropic) -> None:
    """By the SDK's own helper, whatever the model would rather say."""
    message = await client.messages.parse(
        model="test-model",
        max_tokens=200,
        messages=request("Describe a person.")["messages"],
        output_format=Person,
    )
    assert message.stop_reason == "end_turn"
    assert isinstance(message.parsed_output, Person)

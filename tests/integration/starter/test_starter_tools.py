"""Tools and the built-in model, end to end: what a client asks, over HTTP, and what it gets."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import jsonschema_rs
import openai
import pytest

from provider_core import Encoder, ModelRunner, ModelSpec
from provider_onnxruntime import load_model
from provider_starter import MODEL_DIR
from tests.serving import KEY, Serving, serving

WEATHER: Any = {  # the SDK types each tool on its own
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
TIME: Any = {
    "type": "function",
    "function": {"name": "get_time", "description": "Get the current time"},
}
WORDS = ("city", "count", "name", "color", "size", "when", "items", "note", "level", "user")
CONCURRENCY = 8


def load(spec: ModelSpec) -> ModelRunner | Encoder:
    """Load the model, which is there."""
    runner = load_model(spec, Path(spec.source))
    assert runner is not None
    return runner


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server of the built-in model."""
    model = {"id": "test-model", "source": str(MODEL_DIR), "max_model_len": 2048}
    async with serving(load, models=(model,)) as running:
        yield running


@pytest.fixture
async def client(served: Serving) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK's client, as a user makes it."""
    async with openai.AsyncOpenAI(base_url=served.url + "/v1", api_key=KEY, max_retries=0) as made:
        yield made


async def ask(client: openai.AsyncOpenAI, text: str, **fields: Any) -> Any:  # unions of the SDK's
    """The first choice of a whole answer."""
    reply = await client.chat.completions.create(
        model="test-model",
        messages=[{"role": "user", "content": text}],
        **{"tools": [WEATHER, TIME], "max_tokens": 200, "temperature": 0, **fields},
    )
    return reply.choices[0]


def calls_of(choice: Any) -> list[tuple[str, str]]:  # of the SDK
    """Names and arguments."""
    return [(c.function.name, c.function.arguments) for c in choice.message.tool_calls or []]


async def test_it_calls_the_tool_that_fits(client: openai.AsyncOpenAI) -> None:
    """It was trained to; nothing forces it."""
    choice = await ask(client, "What is the weather in Rome?")
    assert calls_of(choice) == [("get_weather", '{"city": "Rome"}')]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)


async def test_bug_21_it_calls_a_tool_without_parameters(client: openai.AsyncOpenAI) -> None:
    """With an empty object."""
    assert calls_of(await ask(client, "What time is it?")) == [("get_time", "{}")]


async def test_it_greets_without_a_call(client: openai.AsyncOpenAI) -> None:
    """Tools do not have to be used."""
    choice = await ask(client, "hello")
    assert (choice.finish_reason, calls_of(choice)) == ("stop", [])
    assert "Hello" in choice.message.content


async def test_it_can_be_made_to_call(client: openai.AsyncOpenAI) -> None:
    """One tool by name, whatever was asked."""
    named = {"type": "function", "function": {"name": "get_weather"}}
    choice = await ask(client, "hello", tool_choice=named)
    assert [name for name, _ in calls_of(choice)] == ["get_weather"]


async def test_it_answers_from_a_result(client: openai.AsyncOpenAI) -> None:
    """Over two turns, with the ids it was given."""
    question: Any = {"role": "user", "content": "What is the weather in Rome?"}
    first = await ask(client, question["content"])
    [call] = first.message.tool_calls
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": '{"weather": "sunny"}'}
    reply = await client.chat.completions.create(
        model="test-model",
        messages=[question, first.message, result],
        tools=[WEATHER, TIME],
        temperature=0,
        max_tokens=60,
    )
    assert "sunny" in (reply.choices[0].message.content or "")


def random_schema(random: Random, depth: int = 0) -> dict[str, Any]:
    """A schema such as tools have."""
    kinds = ["string", "enum", "integer", "number", "boolean", "array", "const", "object"]
    kind = random.choice(kinds[: 8 if depth < 2 else 5])
    match kind:
        case "enum":
            return {"type": "string", "enum": random.sample(WORDS, 3)}
        case "const":
            return {"const": random.choice([None, True, 5, "x"])}
        case "integer":
            return {"type": "integer", "minimum": random.randint(-9, 0), "maximum": 100}
        case "array":
            return {"type": "array", "items": random_schema(random, depth + 1), "maxItems": 3}
        case "object":
            return random_object(random, depth + 1)
        case "string":
            return {"type": "string", "maxLength": 12}
    return {"type": kind}


def random_object(random: Random, depth: int = 0) -> dict[str, Any]:
    """An object of up to four properties, some of them required."""
    names = random.sample(WORDS, random.randint(0, 4))
    return {
        "type": "object",
        "properties": {name: random_schema(random, depth) for name in names},
        "required": random.sample(names, random.randint(0, len(names))),
        **random.choice([{}, {"additionalProperties": False}]),
    }


async def ask_at_random(client: openai.AsyncOpenAI, seed: int) -> tuple[str, int]:
    """One request with tools of chance; check every call of its answer.

    Returns:
        The finish reason and the number of calls.
    """
    random = Random(seed)  # noqa: S311 - chance, not secrets
    schemas = {f"{random.choice(WORDS)}_{i}": random_object(random) for i in range(3)}
    tools = [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name, schema in schemas.items()
    ]
    text = f"Please use {random.choice(list(schemas))} for {random.choice(WORDS)}"
    choice = await ask(
        client,
        text,
        tools=tools,
        tool_choice=random.choice(["required", "required", "auto"]),
        parallel_tool_calls=random.choice([True, False, False, False]),
        temperature=random.choice([0, 1]),
        seed=seed,
        max_tokens=160,
    )
    calls = calls_of(choice)
    if choice.finish_reason == "tool_calls":
        assert calls
        for name, arguments in calls:
            jsonschema_rs.validate(schemas[name], json.loads(arguments), draft=jsonschema_rs.Draft7)
    return choice.finish_reason, len(calls)


@pytest.mark.parametrize(
    "num_requests",
    [
        pytest.param(200, marks=pytest.mark.timeout(300)),
        pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)]),
    ],
)
async def test_every_call_conforms_to_its_schema(
    client: openai.AsyncOpenAI, num_requests: int
) -> None:
    """None has broken JSON, an unknown name, or arguments that Draft 7 refuses."""
    seeds = iter(range(num_requests))

    async def work() -> list[tuple[str, int]]:
        return [await ask_at_random(client, seed) for seed in seeds]

    ends = [
        end
        for ended in await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
        for end in ended
    ]
    reasons = [reason for reason, _ in ends]
    assert len(ends) == num_requests
    assert reasons.count("tool_calls") > num_requests / 2
    assert set(reasons) <= {"tool_calls", "stop", "length"}

"""The google-genai package and the built-in model, end to end: well-formed whatever it says."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from google import genai
from google.genai import types
from pydantic import BaseModel, Field

from provider_core import ModelRunner, ModelSpec
from provider_onnxruntime import load_model
from provider_starter import MODEL_DIR
from tests.serving import KEY, serving

# The package subclasses aiohttp's session, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")

WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather",
    "parameters": {
        "type": "OBJECT",
        "properties": {
            "days": {"type": "INTEGER", "format": "int32", "minimum": 1, "maximum": 7},
            "city": {"type": "STRING", "enum": ["Rome", "Oslo"]},
        },
        "propertyOrdering": ["city", "days"],
        "required": ["city", "days"],
    },
}
VALID = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Rome", "Oslo"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "days"],
}
ASK: Any = {"model": "test-model", "contents": "How is the weather in Oslo?"}


def load(spec: ModelSpec) -> ModelRunner:
    """The built-in model's runner."""
    runner = load_model(spec, Path(spec.source))
    assert isinstance(runner, ModelRunner)
    return runner


@pytest.fixture
async def client() -> AsyncIterator[genai.client.AsyncClient]:
    """A client of a server of the built-in model."""
    model = {"id": "test-model", "source": str(MODEL_DIR), "max_model_len": 2048}
    async with serving(load, models=(model,)) as served:
        http = types.HttpOptions(base_url=served.url)
        client = genai.Client(api_key=KEY, http_options=http).aio
        yield client
        await client.aclose()


def config(**fields: Any) -> Any:
    """A greedy configuration that leaves calls to the test."""
    return {
        "temperature": 0,
        "max_output_tokens": 80,
        "automatic_function_calling": {"disable": True},
        **fields,
    }


async def test_a_stream_says_what_a_whole_answer_says(client: genai.client.AsyncClient) -> None:
    """The same text, reason and counts."""
    whole = await client.models.generate_content(**ASK, config=config())
    pieces = [p async for p in await client.models.generate_content_stream(**ASK, config=config())]
    counted = await client.models.count_tokens(**ASK)

    assert "".join(piece.text or "" for piece in pieces) == whole.text
    assert whole.text
    for usage in (whole.usage_metadata, pieces[-1].usage_metadata):
        assert usage is not None
        assert usage.prompt_token_count == counted.total_tokens
    assert whole.candidates is not None
    assert pieces[-1].candidates is not None
    assert pieces[-1].candidates[0].finish_reason == whole.candidates[0].finish_reason


async def test_a_forced_call_has_valid_arguments(client: genai.client.AsyncClient) -> None:
    """Streamed and whole the same, in the order that was asked for; the next turn takes them."""
    calling = {
        "function_calling_config": {"mode": "ANY", "allowed_function_names": [WEATHER["name"]]}
    }
    forced = config(tools=[{"function_declarations": [WEATHER]}], tool_config=calling)
    whole = await client.models.generate_content(**ASK, config=forced)
    pieces = [p async for p in await client.models.generate_content_stream(**ASK, config=forced)]
    streamed = [call for piece in pieces for call in piece.function_calls or []]

    assert whole.function_calls
    assert [call.args for call in streamed] == [call.args for call in whole.function_calls]
    for call in whole.function_calls:
        assert call.name == "get_weather"
        assert list(call.args or {}) == ["city", "days"]
        jsonschema_rs.validate(VALID, call.args)
    assert whole.candidates is not None
    answers: list[Any] = [
        types.Part.from_function_response(name="get_weather", response={"output": "5"})
        for _ in whole.function_calls
    ]
    turns: Any = [
        types.UserContent(ASK["contents"]),
        whole.candidates[0].content,
        types.Content(role="user", parts=answers),
    ]
    again = await client.models.generate_content(
        model="test-model", contents=turns, config=config()
    )
    assert again.candidates is not None


class Person(BaseModel):
    """What is asked for."""

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=150)


async def test_structured_output_is_parsed(client: genai.client.AsyncClient) -> None:
    """By the SDK's own helper, whatever the model would rather say."""
    reply = await client.models.generate_content(
        model="test-model",
        contents="Describe a person.",
        config=config(
            max_output_tokens=200, response_mime_type="application/json", response_schema=Person
        ),
    )
    assert isinstance(reply.parsed, Person)


async def test_one_of_some_words_is_answered(client: genai.client.AsyncClient) -> None:
    """And nothing besides."""
    reply = await client.models.generate_content(
        model="test-model",
        contents="Which colour?",
        config=config(
            response_mime_type="text/x.enum",
            response_schema={"type": "STRING", "enum": ["red", "blue"]},
        ),
    )
    assert reply.text in {"red", "blue"}

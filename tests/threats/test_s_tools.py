"""S1 for tools: schemas of arguments that are wrong anywhere, in every dialect that takes one."""

import random
from collections.abc import AsyncIterator, Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import pytest_asyncio

from tests.serving import HERMES, Serving, saying, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

NUM_CHANGED = 60
SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "string", "enum": ["x", "y"]},
        "b": {"type": "array", "items": {"type": "number", "minimum": 0}},
        "c": {"$ref": "#/$defs/z"},
    },
    "required": ["a"],
    "$defs": {"z": {"type": ["string", "null"]}},
}
ODD: list[Any] = [
    *(None, True, 0, -1, 1.5, 2**70, "", "x", "\0", [], {}, [None], [{}], [[]], {"": None}),
    *({"a": [{}]}, ["x"] * 3, {"type": "object"}, {"$ref": "#"}, {"type": None}, [1, "a", {}]),
]
KEYWORDS = ["required", "enum", "type", "$ref", "properties", "items", "anyOf", "const", "$defs"]
Ask = Callable[[Any], tuple[str, dict[str, Any]]]


def _openai(schema: Any) -> tuple[str, dict[str, Any]]:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "test-model", "max_tokens": 1, "messages": messages, "tools": [tool]}
    return "/v1/chat/completions", body


def _responses(schema: Any) -> tuple[str, dict[str, Any]]:
    tool = {"type": "function", "name": "f", "parameters": schema}
    body = {"model": "test-model", "max_output_tokens": 1, "input": "hi", "tools": [tool]}
    return "/v1/responses", body


def _anthropic(schema: Any) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": "hi"}]
    tools = [{"name": "f", "input_schema": schema}]
    body = {"model": "test-model", "max_tokens": 1, "messages": messages, "tools": tools}
    return "/v1/messages", body


def _google(schema: Any) -> tuple[str, dict[str, Any]]:
    tools = [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": schema}]}]
    contents = [{"role": "user", "parts": [{"text": "hi"}]}]
    body = {"contents": contents, "tools": tools, "generationConfig": {"maxOutputTokens": 1}}
    return "/v1beta/models/test-model:generateContent", body


DIALECTS: dict[str, tuple[Ask, str]] = {  # and how a refusal names the schema
    "openai": (_openai, "tools[0].function.parameters"),
    "responses": (_responses, "tools[0].parameters"),
    "anthropic": (_anthropic, "tools.0.input_schema"),
    "google": (_google, "tools[0].functionDeclarations[0].parametersJsonSchema"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def calling() -> AsyncIterator[Serving]:
    """A server of a model that may call tools."""
    async with serving(saying("Hello!"), chat_template=HERMES) as running:
        yield running


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        *(("required", None), ("required", 5), ("required", "a")),
        *(("required[0]", [{}]), ("required[0]", [["a"]])),
        *(("properties", None), ("properties", 5), ("properties", ["a"])),
        *(("$defs", 5), ("$defs", ["a"])),
    ],
)
async def test_s1_a_wrong_part_of_a_tools_schema_is_named(
    calling: Serving, dialect: str, keyword: str, value: Any
) -> None:
    """A 400 that says which tool and which part."""
    ask, place = DIALECTS[dialect]
    path, body = ask({**SCHEMA, keyword.removesuffix("[0]"): value})
    reply = await calling.post(path, body)
    assert reply.status == 400
    assert f"{place}.{keyword} must be" in await reply.text()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_s1_no_schema_of_a_tool_ends_in_a_server_error(
    calling: Serving, dialect: str
) -> None:
    """Whatever any part of it became: it is served or refused."""
    ask, _ = DIALECTS[dialect]
    rng = random.Random(dialect)  # noqa: S311 - the same schemas every time
    statuses = set()
    for _ in range(NUM_CHANGED):
        schema = _changed(rng)
        reply = await calling.post(*ask(schema))
        assert reply.status in {200, 400}, schema
        statuses.add(reply.status)
    assert statuses == {200, 400}


def _changed(rng: random.Random) -> dict[str, Any]:
    schema = deepcopy(SCHEMA)
    for _ in range(rng.choice([1, 1, 2])):
        container, key = rng.choice(list(_places(schema)))
        if isinstance(container, dict) and rng.random() < 0.25:
            key = rng.choice(KEYWORDS)
        container[key] = deepcopy(rng.choice(ODD))
    return schema


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with a key of it."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])

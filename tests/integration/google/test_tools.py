"""Functions, thoughts and structured output with google-genai, over a scripted model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google import genai
from google.genai import errors, types
from pydantic import BaseModel

from tests.prompts_seen import PromptsSeen
from tests.serving import HERMES, KEY, Serving, saying, serving

# The package subclasses aiohttp's session, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")

LOOK: dict[str, Any] = {
    "name": "look",
    "description": "Look somewhere",
    "parameters": {
        "type": "OBJECT",
        "properties": {"at": {"type": "STRING"}},
        "required": ["at"],
    },
}
TOOLS = [{"function_declarations": [LOOK]}]
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "me"}}\n</tool_call>'
REPLY = "<think>\nhm\n</think>\nI look." + CALL


@pytest.fixture
async def prompts() -> PromptsSeen:
    """What the served model sees."""
    return PromptsSeen()


@pytest.fixture
async def served(prompts: PromptsSeen) -> AsyncIterator[Serving]:
    """A model that thinks, speaks and calls a function, whatever it is asked."""
    async with serving(saying(REPLY, on_execute=prompts), chat_template=HERMES) as running:
        yield running


@asynccontextmanager
async def client_of(served: Serving) -> AsyncIterator[genai.client.AsyncClient]:
    """The SDK's client, as a user makes it."""
    client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=served.url)).aio
    try:
        yield client
    finally:
        await client.aclose()


async def ask(
    served: Serving, contents: Any = "what do you see?", **config: Any
) -> tuple[types.GenerateContentResponse, list[types.GenerateContentResponse]]:
    """An answer, whole and in pieces; calls are left to the test."""
    request: Any = {
        "model": "test-model",
        "contents": contents,
        "config": {"automatic_function_calling": {"disable": True}, **config},
    }
    async with client_of(served) as client:
        whole = await client.models.generate_content(**request)
        pieces = [p async for p in await client.models.generate_content_stream(**request)]
    return whole, pieces


def parts_of(*pieces: types.GenerateContentResponse) -> list[dict[str, Any]]:
    """Parts without the ids of calls, neighbouring texts joined and empty ones left out."""
    joined: list[dict[str, Any]] = []
    for piece in pieces:
        for candidate in piece.candidates or []:
            assert candidate.content is not None
            for part in candidate.content.parts or []:
                value = part.model_dump(exclude_none=True, exclude={"function_call": {"id"}})
                if value.get("text") == "":
                    continue
                if joined and "text" in value and joined[-1].keys() == value.keys():
                    value["text"] = joined.pop()["text"] + value["text"]
                joined.append(value)
    return joined


async def test_thoughts_text_and_a_call_come_in_their_order(served: Serving) -> None:
    """The same streamed and whole, with the counts of each."""
    whole, pieces = await ask(served, tools=TOOLS, thinking_config={"include_thoughts": True})
    thought, text, call = parts_of(whole)

    assert parts_of(*pieces) == parts_of(whole)
    assert thought["thought"]
    assert thought["text"].strip() == "hm"
    assert text == {"text": "I look."}
    assert call == {"function_call": {"name": "look", "args": {"at": "me"}}}
    assert whole.function_calls is not None
    assert whole.candidates is not None
    assert whole.candidates[0].finish_reason == types.FinishReason.STOP
    usage = whole.usage_metadata
    assert usage is not None
    assert usage == pieces[-1].usage_metadata
    assert usage.thoughts_token_count
    assert usage.total_token_count == sum(
        count or 0
        for count in (
            usage.prompt_token_count,
            usage.candidates_token_count,
            usage.thoughts_token_count,
        )
    )


async def test_thoughts_are_shown_to_those_who_ask(served: Serving) -> None:
    """To others they are counted only."""
    whole, pieces = await ask(served, tools=TOOLS)

    assert [list(part) for part in parts_of(whole)] == [["text"], ["function_call"]]
    assert parts_of(*pieces) == parts_of(whole)
    assert whole.usage_metadata is not None
    assert whole.usage_metadata.thoughts_token_count


@pytest.mark.parametrize(
    ("result", "text"),
    [({"output": "a mirror"}, "a mirror"), ({"error": "dark"}, "Error: dark")],
)
async def test_a_response_answers_its_call_in_the_next_turn(
    served: Serving, prompts: PromptsSeen, result: Any, text: str
) -> None:
    """The SDK's content goes back as it came."""
    whole, _ = await ask(served, tools=TOOLS, thinking_config={"include_thoughts": True})
    assert whole.candidates is not None
    answer = types.Part.from_function_response(name="look", response=result)
    turns = [
        types.UserContent("what do you see?"),
        whole.candidates[0].content,
        types.Content(role="user", parts=[answer]),
    ]
    await ask(served, turns, tools=TOOLS)

    assert prompts.holds("<think>\nhm")
    assert prompts.holds('I look.<tool_call>\n{"name": "look", "arguments": {"at": "me"}}')
    assert prompts.holds("tool\n" + text)


async def test_the_package_calls_functions_by_itself() -> None:
    """A Python function as a tool: called, answered, and asked again until there is no call."""
    seen = []

    def look(at: str) -> str:
        """Look somewhere.

        Args:
            at: Where.
        """
        seen.append(at)
        return "a mirror"

    async with serving(saying(CALL), chat_template=HERMES) as served, client_of(served) as client:
        reply = await client.models.generate_content(
            model="test-model",
            contents="what do you see?",
            config=types.GenerateContentConfig(
                tools=[look],
                automatic_function_calling=types.AutomaticFunctionCallingConfig(
                    maximum_remote_calls=2
                ),
            ),
        )
    assert seen
    assert set(seen) == {"me"}
    assert reply.automatic_function_calling_history


class Person(BaseModel):
    """What is asked for."""

    name: str
    age: int


@pytest.mark.parametrize("field", ["response_schema", "response_json_schema"])
async def test_a_schema_is_followed_and_parsed(field: str) -> None:
    """The SDK's own schema of a class, and its reading of the answer."""
    schema = Person if field == "response_schema" else Person.model_json_schema()
    async with serving(saying('{"name": "Ann", "age": 5}')) as served:
        whole, pieces = await ask(served, response_mime_type="application/json", **{field: schema})
    assert whole.parsed in (Person(name="Ann", age=5), {"name": "Ann", "age": 5})
    assert parts_of(*pieces) == parts_of(whole)


async def test_one_of_some_words_is_answered_without_quotes() -> None:
    """`text/x.enum`, against what the model would rather say."""
    async with serving(saying("blue")) as served:
        whole, _ = await ask(
            served,
            response_mime_type="text/x.enum",
            response_schema={"type": "STRING", "enum": ["red", "blue"]},
        )
    assert whole.text == "blue"


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"thinking_config": {"thinking_budget": 50}}, "generationConfig.thinkingConfig"),
        ({"tools": TOOLS}, "tools"),
        (
            {"response_json_schema": {"properties": {"a": {"$ref": "http://example.com/x"}}}},
            "generationConfig.responseJsonSchema/properties/a",
        ),
    ],
)
async def test_what_a_model_cannot_do_is_refused_by_name(config: Any, field: str) -> None:
    """In the details, by this dialect's name of the field, and in the message."""
    async with serving(saying("Hello!")) as served:
        with pytest.raises(errors.ClientError) as caught:
            await ask(served, **config)
        assert served.usage.events == []
    assert caught.value.code == 400
    (detail,) = caught.value.details["error"]["details"]
    assert detail["fieldViolations"][0]["field"].startswith(field)
    assert field in (caught.value.message or "")


async def test_a_budget_of_nothing_is_fine_for_a_model_that_does_not_think() -> None:
    """It asks for what is the case."""
    async with serving(saying("Hello!")) as served:
        whole, _ = await ask(served, thinking_config={"thinking_budget": 0})
    assert whole.text == "Hello!"

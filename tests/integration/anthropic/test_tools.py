"""Tools, thinking and structured output with the anthropic package, over a scripted model."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

from tests.prompts_seen import PromptsSeen
from tests.serving import HERMES, KEY, Serving, saying, serving

LOOK: Any = {
    "name": "look",
    "description": "Look somewhere",
    "input_schema": {
        "type": "object",
        "properties": {"at": {"type": "string"}},
        "required": ["at"],
    },
}
ASK: Any = {"role": "user", "content": "what do you see?"}
THOUGHT = "<think>\nhm\n</think>\n"
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "me"}}\n</tool_call>'
REPLY = THOUGHT + "I look." + CALL


@pytest.fixture
async def prompts() -> PromptsSeen:
    """What the served model sees."""
    return PromptsSeen()


@pytest.fixture
async def served(prompts: PromptsSeen) -> AsyncIterator[Serving]:
    """A model that thinks, speaks and calls a tool, whatever it is asked."""
    async with serving(saying(REPLY, on_execute=prompts), chat_template=HERMES) as running:
        yield running


def client_of(served: Serving) -> anthropic.AsyncAnthropic:
    """The SDK's client, as a user makes it."""
    return anthropic.AsyncAnthropic(base_url=served.url, api_key=KEY, max_retries=0)


async def ask(served: Serving, *, stream: bool, **fields: Any) -> anthropic.types.Message:
    """One message, whole or accumulated from a stream by the SDK."""
    request: Any = {"model": "test-model", "max_tokens": 200, "messages": [ASK], **fields}
    async with client_of(served) as client:
        if not stream:
            message: anthropic.types.Message = await client.messages.create(**request)
            return message
        async with client.messages.stream(**request) as events:
            return await events.get_final_message()


def blocks_of(message: anthropic.types.Message) -> list[dict[str, Any]]:
    """Its blocks without the ids of calls."""
    return [block.model_dump(exclude_none=True, exclude={"id"}) for block in message.content]


async def test_bug_27_thinking_text_and_a_call_are_three_blocks(served: Serving) -> None:
    """In their order, the same streamed and whole, with the counts of both."""
    streamed = await ask(served, stream=True, tools=[LOOK])
    whole = await ask(served, stream=False, tools=[LOOK])

    assert blocks_of(streamed) == blocks_of(whole)
    thinking, text, call = blocks_of(whole)
    assert thinking["type"] == "thinking"
    assert thinking["thinking"].strip() == "hm"
    assert thinking["signature"]
    assert text == {"type": "text", "text": "I look."}
    assert call == {"type": "tool_use", "name": "look", "input": {"at": "me"}}
    assert streamed.stop_reason == whole.stop_reason == "tool_use"
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert whole.usage.output_tokens_details is not None
    assert 0 < whole.usage.output_tokens_details.thinking_tokens < whole.usage.output_tokens


@pytest.mark.parametrize("is_error", [False, True])
async def test_a_result_answers_its_call_in_the_next_turn(
    served: Serving, prompts: PromptsSeen, *, is_error: bool
) -> None:
    """The SDK's message goes back as it came, thinking and its signature included."""
    first = await ask(served, stream=True, tools=[LOOK])
    call = first.content[-1]
    assert call.type == "tool_use"
    result = {
        "type": "tool_result",
        "tool_use_id": call.id,
        "content": [{"type": "text", "text": "a mirror"}],
        "is_error": is_error,
    }
    turns = [ASK, first.to_param(), {"role": "user", "content": [result]}]
    second = await ask(served, stream=False, tools=[LOOK], messages=turns)

    assert second.stop_reason == "tool_use"
    assert prompts.holds("<think>\nhm")
    assert prompts.holds('I look.<tool_call>\n{"name": "look", "arguments": {"at": "me"}}')
    assert prompts.holds("tool\nError: a mirror" if is_error else "tool\na mirror")


async def test_count_tokens_counts_tools_and_turns(served: Serving) -> None:
    """As many as the message is billed for."""
    fields: Any = {
        "model": "test-model",
        "messages": [ASK],
        "tools": [LOOK],
        "system": "be brief",
        "thinking": {"type": "enabled", "budget_tokens": 100},
    }
    async with client_of(served) as client:
        counted = await client.messages.count_tokens(**fields)
        bare = await client.messages.count_tokens(model="test-model", messages=[ASK])
        message = await client.messages.create(max_tokens=200, **fields)

    assert message.usage.input_tokens == counted.input_tokens > bare.input_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_thinking_is_left_out_if_asked(served: Serving, *, stream: bool) -> None:
    """It is counted all the same."""
    thinking = {"type": "enabled", "budget_tokens": 100, "display": "omitted"}
    message = await ask(served, stream=stream, tools=[LOOK], thinking=thinking)

    assert [block.type for block in message.content] == ["text", "tool_use"]
    assert message.usage.output_tokens_details is not None
    assert message.usage.output_tokens_details.thinking_tokens > 0


async def test_without_tools_the_same_words_are_text(served: Serving) -> None:
    """Markup that nobody asked for is what the model said."""
    message = await ask(served, stream=False)

    assert [block["type"] for block in blocks_of(message)] == ["thinking", "text"]
    assert blocks_of(message)[1]["text"] == "I look." + CALL
    assert message.stop_reason == "end_turn"


async def test_a_model_that_does_not_think_refuses_to() -> None:
    """By the field's own name; to leave it to the model is fine."""
    async with serving(saying("Hello!")) as served:
        with pytest.raises(anthropic.BadRequestError, match="thinking"):
            await ask(served, stream=False, thinking={"type": "enabled", "budget_tokens": 50})
        for thinking in ({"type": "adaptive"}, {"type": "disabled"}):
            message = await ask(served, stream=False, thinking=thinking)
            assert message.stop_reason == "end_turn"


async def test_a_model_that_takes_no_tools_refuses_them() -> None:
    """Unless they may not be called."""
    async with serving(saying("Hello!")) as served:
        with pytest.raises(anthropic.BadRequestError, match="tools"):
            await ask(served, stream=False, tools=[LOOK])
        message = await ask(served, stream=False, tools=[LOOK], tool_choice={"type": "none"})
    assert message.stop_reason == "end_turn"


class Person(BaseModel):
    """What is asked for."""

    name: str
    age: int


async def test_a_schema_is_followed_and_parsed() -> None:
    """The SDK's own helper reads the object."""
    async with serving(saying('{"name": "Ann", "age": 5}')) as served, client_of(served) as client:
        message = await client.messages.parse(
            model="test-model", max_tokens=100, messages=[ASK], output_format=Person
        )
    assert message.parsed_output == Person(name="Ann", age=5)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_schema_that_cannot_be_enforced_is_refused_by_its_place(
    served: Serving, *, stream: bool
) -> None:
    """Before anything is generated."""
    schema = {"type": "object", "properties": {"a": {"$ref": "http://example.com/x"}}}
    config = {"format": {"type": "json_schema", "schema": schema}}
    with pytest.raises(anthropic.BadRequestError, match=r"output_config\.format\.schema/prop"):
        await ask(served, stream=stream, output_config=config)
    strict = LOOK | {"strict": True, "input_schema": schema}
    with pytest.raises(anthropic.BadRequestError, match=r"tools\.0\.input_schema/properties"):
        await ask(served, stream=stream, tools=[strict])
    assert served.usage.events == []

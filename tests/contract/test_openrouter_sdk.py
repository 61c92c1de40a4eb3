"""OpenRouter's own Python package against `/api/v1`: it validates every field of every chunk."""

from typing import Any

import pytest
from openrouter import OpenRouter, components, errors

from tests.contract.chat_scenarios import SCENARIOS, request_of
from tests.serving import HERMES, KEY, Serving, saying, serving

# The package knows no `functions`, sends no `n` and drops `exclude`.
UNKNOWN = {"a function of the old kind", "two choices", "hidden reasoning"}
NAMES = sorted(SCENARIOS.keys() - UNKNOWN)


def client_of(served: Serving) -> OpenRouter:
    """The package's client, as a user makes it."""
    return OpenRouter(api_key=KEY, server_url=served.url + "/api/v1")


@pytest.mark.parametrize("name", NAMES)
async def test_chats_of_every_kind_validate(name: str) -> None:
    """BUG-03, BUG-29: streamed and whole, and both say the same."""
    scenario = SCENARIOS[name]
    request: Any = request_of(scenario)
    async with (
        serving(saying(scenario.says), chat_template=HERMES) as served,
        client_of(served) as client,
    ):
        whole = await client.chat.send_async(**request)
        assert isinstance(whole, components.ChatResult)
        stream = await client.chat.send_async(**request, stream=True)
        assert not isinstance(stream, components.ChatResult)
        async with stream:
            chunks = [chunk async for chunk in stream]
    [choice] = whole.choices
    deltas = [part.delta for chunk in chunks for part in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == scenario.text
    assert (choice.message.content or "") == scenario.text
    assert ("".join(delta.reasoning or "" for delta in deltas) or None) == scenario.reasoning
    calls = choice.message.tool_calls or []
    assert [(call.function.name, call.function.arguments) for call in calls] == scenario.calls
    assert choice.finish_reason == chunks[-1].choices[0].finish_reason == scenario.reason
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert whole.usage.total_tokens == chunks[-1].usage.total_tokens
    assert whole.usage.cost == chunks[-1].usage.cost
    assert whole.usage.cost


async def test_errors_have_the_packages_classes() -> None:
    """By status, with the message and the integer code that it insists on."""
    async with serving(saying("Hello!")) as served, client_of(served) as client:
        messages: Any = [{"role": "user", "content": "hi"}]
        with pytest.raises(errors.BadRequestResponseError) as caught:
            await client.chat.send_async(model="nobody", messages=messages)
        assert caught.value.data.error.code == 400
        with pytest.raises(errors.BadRequestResponseError):
            await client.chat.send_async(model="test-model", messages=messages, temperature=3)


async def test_responses_validate() -> None:
    """The Responses API, streamed and whole."""
    scenario = SCENARIOS["reasoning and a call"]
    tools: Any = [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]
    async with (
        serving(saying(scenario.says), chat_template=HERMES) as served,
        client_of(served) as client,
    ):
        request: Any = {"model": "test-model", "input": "hi", "tools": tools}
        whole: Any = await client.beta.responses.send_async(**request)
        stream: Any = await client.beta.responses.send_async(**request, stream=True)
        async with stream:
            events = [event async for event in stream]
    assert [item.type for item in whole.output] == ["reasoning", "function_call"]
    assert events[-1].type == "response.completed"
    assert events[-1].response.output[1].arguments == whole.output[1].arguments

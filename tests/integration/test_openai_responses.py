"""The openai package's Responses API, unchanged, against the real server."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import openai.types.responses as sdk
import pytest

from tests.serving import KEY, Serving, saying, serving


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server that says "Hello!" to everything."""
    async with serving(saying("Hello!")) as running:
        yield running


def client_of(served: Serving, **options: Any) -> openai.AsyncOpenAI:
    """The SDK's client, as a user makes it."""
    return openai.AsyncOpenAI(
        base_url=served.url + "/v1", **{"api_key": KEY, "max_retries": 0, **options}
    )


async def test_a_whole_response(served: Serving) -> None:
    """Text, counts, and the package's own type, strictly; the ledger knows the endpoint."""
    async with client_of(served) as client:
        raw = await client.responses.with_raw_response.create(
            model="test-model", input="hi", instructions="be brief"
        )
    reply = raw.parse()
    sdk.Response.model_validate_json(raw.content, strict=True)
    assert raw.headers["content-type"].startswith("application/json")
    assert reply.output_text == "Hello!"
    assert reply.status == "completed"
    assert reply.usage is not None
    assert reply.usage.output_tokens == 7
    assert reply.id.startswith("gen-")
    (event,) = served.usage.events
    assert event["endpoint"] == "responses"


async def test_a_streamed_response_equals_the_whole_one(served: Serving) -> None:
    """The helper ends with the same text and counts, and its events count up."""
    async with client_of(served) as client:
        reply = await client.responses.create(model="test-model", input="hi")
        async with client.responses.stream(model="test-model", input="hi") as stream:
            numbers = [event.sequence_number async for event in stream]
            streamed = await stream.get_final_response()
    assert numbers == list(range(len(numbers)))
    assert streamed.output_text == reply.output_text
    assert streamed.usage == reply.usage


async def test_the_limit_makes_a_response_incomplete(served: Serving) -> None:
    """Streamed or whole: `incomplete`, and why."""
    async with client_of(served) as client:
        reply = await client.responses.create(model="test-model", input="hi", max_output_tokens=3)
        last = None
        async for event in await client.responses.create(
            model="test-model", input="hi", max_output_tokens=3, stream=True
        ):
            last = event
    assert (reply.status, reply.output_text) == ("incomplete", "Hel")
    assert last is not None
    assert last.type == "response.incomplete"
    assert last.response.output_text == "Hel"


async def test_a_conversation_is_sent_whole(served: Serving) -> None:
    """What one response put out goes into the next request as it is."""
    async with client_of(served) as client:
        first = await client.responses.create(model="test-model", input="hi")
        history: Any = [
            {"role": "user", "content": "hi"},
            *(item.model_dump() for item in first.output),
            {"role": "user", "content": "again"},
        ]
        second = await client.responses.create(model="test-model", input=history)
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"model": "nobody"}, openai.NotFoundError, None),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"input": []}, openai.BadRequestError, "input"),
        ({"input": "x" * 3000}, openai.BadRequestError, "input"),
        ({"previous_response_id": "resp_1"}, openai.BadRequestError, "previous_response_id"),
        ({"store": True}, openai.BadRequestError, "store"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_bug_11_errors_are_the_same_streamed_or_not(
    served: Serving,
    fields: dict[str, Any],
    error: type[openai.APIStatusError],
    param: str | None,
    *,
    stream: bool,
) -> None:
    """BUG-11: a status of its own, and the field as this API calls it."""
    request: dict[str, Any] = {"model": "test-model", "input": "hi", "stream": stream, **fields}
    async with client_of(served) as client:
        with pytest.raises(error) as caught:
            await client.responses.create(**request)
    assert caught.value.param == param
    assert caught.value.request_id is not None
    assert served.usage.events == []


async def test_openrouter_has_it_with_its_own_errors_and_cost(served: Serving) -> None:
    """Under `/api/v1`."""
    reply = await served.post("/api/v1/responses", {"model": "test-model", "input": "hi"})
    assert reply.status == 200
    assert (await reply.json())["usage"]["cost"] > 0
    refused = await served.post("/api/v1/responses", {"model": "nobody", "input": "hi"})
    assert (refused.status, (await refused.json())["error"]["code"]) == (400, 400)


async def test_openrouters_fallbacks_hold_for_responses_too(served: Serving) -> None:
    """The first of `models` that can answers, and is named."""
    body = {"models": ["nobody", "test-model"], "input": "hi"}
    reply = await served.post("/api/v1/responses", body)
    assert reply.status == 200, await reply.text()
    assert (await reply.json())["model"] == "test-model"


async def test_input_tokens_are_those_of_the_bill(served: Serving) -> None:
    """The count of a body is what its response says; counting costs nothing."""
    async with client_of(served) as client:
        count = await client.responses.input_tokens.count(model="test-model", input="hi there")
        assert served.usage.events == []
        reply = await client.responses.create(model="test-model", input="hi there")
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.input_tokens.count(model="test-model", input="x" * 3000)
    assert reply.usage is not None
    assert count.input_tokens == reply.usage.input_tokens
    assert count.object == "response.input_tokens"
    assert caught.value.param == "input"

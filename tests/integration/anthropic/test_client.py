"""The anthropic package, unchanged, against the real server: only base URL and key differ."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from tests.anthropic_sse_checker import check_message_stream
from tests.serving import KEY, Serving, ids_of, saying, serving

MESSAGES: Any = [{"role": "user", "content": "hi"}]  # the SDK types each role on its own


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server that says "Hello!" to everything."""
    async with serving(saying("Hello!")) as running:
        yield running


def client_of(served: Serving, base: str = "", **options: Any) -> anthropic.AsyncAnthropic:
    """The SDK's client, as a user makes it."""
    return anthropic.AsyncAnthropic(
        base_url=served.url + base, **{"api_key": KEY, "max_retries": 0, **options}
    )


@pytest.mark.parametrize("base", ["", "/api"])
async def test_a_whole_message_has_text_reason_and_usage(served: Serving, base: str) -> None:
    """`create` returns one block of text, `end_turn`, and the counts."""
    async with client_of(served, base) as client:
        reply = await client.messages.create(model="test-model", max_tokens=50, messages=MESSAGES)
        counted = await client.messages.count_tokens(model="test-model", messages=MESSAGES)

    assert [block.model_dump(exclude_none=True) for block in reply.content] == [
        {"type": "text", "text": "Hello!"}
    ]
    assert (reply.stop_reason, reply.stop_sequence) == ("end_turn", None)
    assert reply.usage.output_tokens == 7  # six bytes and the end
    assert reply.usage.input_tokens == counted.input_tokens
    assert reply.id.startswith("msg_")
    assert reply.model == "test-model"
    (event,) = served.usage.events
    assert event["endpoint"] == "messages"
    assert reply.id.removeprefix("msg_") == event["generation_id"].removeprefix("gen-")


async def test_bug_26_a_stream_starts_with_the_real_input_tokens(served: Serving) -> None:
    """As many as count_tokens says; and the accumulated message is the whole one."""
    system = "Answer in one word."
    async with client_of(served) as client:
        counted = await client.messages.count_tokens(
            model="test-model", messages=MESSAGES, system=system
        )
        async with client.messages.stream(
            model="test-model", max_tokens=50, messages=MESSAGES, system=system
        ) as stream:
            events = [event async for event in stream]
            streamed = await stream.get_final_message()
        whole = await client.messages.create(
            model="test-model", max_tokens=50, messages=MESSAGES, system=system
        )

    start = events[0]
    assert start.type == "message_start"
    assert start.message.usage.input_tokens == counted.input_tokens
    assert streamed.content[0].type == "text"
    assert streamed.content[0].text == "Hello!"
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert streamed.usage.input_tokens == whole.usage.input_tokens
    assert streamed.stop_reason == whole.stop_reason == "end_turn"


async def test_bug_29_cached_tokens_stand_beside_the_input_tokens() -> None:
    """The same prompt again: part of it is read from the cache, and the sum stays."""
    runner = saying("Hello!", num_cache_blocks=64)
    async with serving(runner) as served, client_of(served) as client:
        messages: Any = [{"role": "user", "content": "a long prefix " * 20}]
        request: Any = {"model": "test-model", "max_tokens": 50, "messages": messages}
        first = await client.messages.create(**request)
        await served.settled()
        second = await client.messages.create(**request)
        async with client.messages.stream(**request) as stream:
            start = await anext(aiter(stream))
        counted = await client.messages.count_tokens(model="test-model", messages=messages)

    assert start.type == "message_start"
    assert first.usage.cache_read_input_tokens == 0
    for usage in (second.usage, start.message.usage):
        assert usage.cache_read_input_tokens
        assert usage.input_tokens + usage.cache_read_input_tokens == counted.input_tokens
    assert counted.input_tokens == first.usage.input_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_sequence_is_named(*, stream: bool) -> None:
    """It and what follows are not shown."""
    request: Any = {
        "model": "test-model",
        "max_tokens": 50,
        "messages": MESSAGES,
        "stop_sequences": ["never", ", th"],
    }
    async with serving(saying("one, two, three")) as served, client_of(served) as client:
        if stream:
            async with client.messages.stream(**request) as events:
                reply: anthropic.types.Message = await events.get_final_message()
        else:
            reply = await client.messages.create(**request)
    assert reply.content[0].type == "text"
    assert reply.content[0].text == "one, two"
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", ", th")


async def test_the_end_of_room_has_its_own_reasons() -> None:
    """What was asked, or what fits."""
    async with serving(saying("a" * 500), max_model_len=100) as served, client_of(served) as client:
        asked = await client.messages.create(model="test-model", max_tokens=3, messages=MESSAGES)
        full = await client.messages.create(model="test-model", max_tokens=400, messages=MESSAGES)
    assert asked.stop_reason == "max_tokens"
    assert asked.usage.output_tokens == 3
    assert full.stop_reason == "model_context_window_exceeded"


async def test_a_last_turn_of_the_assistant_is_continued() -> None:
    """The prompt ends inside it."""
    prompts = []
    runner = saying("Hello!", on_execute=lambda batch: prompts.append(batch.token_ids.copy()))
    async with serving(runner) as served, client_of(served) as client:
        await client.messages.create(
            model="test-model",
            messages=[*MESSAGES, {"role": "assistant", "content": "Sure: "}],
            max_tokens=1,
        )
    end = ids_of("assistant\nSure: ")
    assert prompts[-1][0].tolist()[-len(end) :] == end


async def test_a_body_without_max_tokens_is_refused_and_zero_computes_the_prompt(
    served: Serving,
) -> None:
    """The field is required; 0 warms the cache and makes nothing."""
    body: dict[str, Any] = {"model": "test-model", "messages": MESSAGES}
    missing = await served.post("/v1/messages", body)
    async with client_of(served) as client:
        none = await client.messages.create(**body, max_tokens=0)

    assert missing.status == 400
    assert (await missing.json())["error"]["message"] == "max_tokens is required"
    assert none.content == []
    assert none.stop_reason == "max_tokens"
    assert none.usage.output_tokens == 0


@pytest.mark.parametrize(
    ("options", "fields", "error", "error_type"),
    [
        ({"api_key": "sk-wrong"}, {}, anthropic.AuthenticationError, "authentication_error"),
        ({}, {"model": "nobody"}, anthropic.NotFoundError, "not_found_error"),
        ({}, {"extra_body": {"top_p": 0}}, anthropic.BadRequestError, "invalid_request_error"),
        (
            {},
            {"messages": [{"role": "user", "content": "a" * 3000}]},
            anthropic.BadRequestError,
            "invalid_request_error",
        ),
        (
            {},
            {"messages": [{"role": "user", "content": "a" * 2**23}]},
            anthropic.RequestTooLargeError,
            "request_too_large",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_bug_11_errors_are_the_same_streamed_or_not(
    served: Serving,
    options: dict[str, Any],
    fields: dict[str, Any],
    error: type[anthropic.APIStatusError],
    error_type: str,
    *,
    stream: bool,
) -> None:
    """The SDK raises the class of its status, once, and finds type and id where it looks."""
    num_tries = 0

    async def count(_request: object) -> None:
        nonlocal num_tries
        num_tries += 1

    request: Any = {"model": "test-model", "max_tokens": 5, "messages": MESSAGES, **fields}
    async with client_of(served, max_retries=2, **options) as client:
        client._client.event_hooks["request"].append(count)
        with pytest.raises(error) as caught:
            await client.messages.create(**request, stream=stream)
    assert num_tries == 1
    assert caught.value.type == error_type
    assert caught.value.request_id is not None
    assert caught.value.request_id.startswith("req-")
    assert served.usage.events == []


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
async def test_either_header_carries_the_key(served: Serving, header: str) -> None:
    """Older clients send one, newer ones the other, and any version is fine."""
    headers = {
        "x-api-key": {"x-api-key": KEY, "Authorization": ""},
        "authorization": {"Authorization": f"Bearer {KEY}"},
    }[header]
    served.session.headers.pop("Authorization")
    body = {"model": "test-model", "max_tokens": 5, "messages": MESSAGES}
    sent = {name: value for name, value in headers.items() if value}
    for version in ("2023-06-01", "2026-10-21", "tomorrow"):
        response = await served.post(
            "/v1/messages", body, headers={**sent, "anthropic-version": version}
        )
        assert response.status == 200
        assert response.headers["request-id"] == response.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("method", "path", "status", "error_type"),
    [
        ("POST", "/v1/messages/batches", 404, "not_found_error"),
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("POST", "/api/v1/messages/x", 404, "not_found_error"),
    ],
)
async def test_paths_that_are_not_there_answer_in_this_dialect(
    served: Serving, method: str, path: str, status: int, error_type: str
) -> None:
    """Like every other error."""
    async with served.session.request(method, served.url + path) as response:
        body = await response.json()
    assert response.status == status
    assert body["error"]["type"] == error_type


async def test_models_are_listed_by_the_header_that_says_who_asks(served: Serving) -> None:
    """A page with limits; one by id or alias, with a slash; an unknown one is not found."""
    async with client_of(served) as client:
        models = [model async for model in client.models.list(limit=1)]
        by_alias = await client.models.retrieve("openai/gpt-test")
        with pytest.raises(anthropic.NotFoundError):
            await client.models.retrieve("nobody")
    plain = await (await served.session.get(served.url + "/v1/models")).json()

    assert [model.id for model in models] == [by_alias.id] == ["test-model"]
    assert models[0].max_input_tokens == 2048
    assert plain["object"] == "list"


async def test_the_bytes_of_a_stream_keep_every_rule_of_framing(served: Serving) -> None:
    """Names, one object per event, order, and no terminator of another dialect."""
    body = {"model": "test-model", "max_tokens": 50, "messages": MESSAGES, "stream": True}
    response = await served.post("/v1/messages", body)
    raw = await response.read()
    checked = check_message_stream(raw)

    assert response.content_type == "text/event-stream"
    assert checked.message is not None
    assert checked.message["content"] == [{"type": "text", "text": "Hello!"}]
    assert b"[DONE]" not in raw

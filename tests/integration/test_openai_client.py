"""The openai package, unchanged, against the real server: only base URL and key differ."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.serving import KEY, Serving, saying, scripted_runner, serving

MESSAGES: Any = [{"role": "user", "content": "hi"}]  # the SDK types each role on its own


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


async def test_a_whole_chat_has_text_reason_and_usage(served: Serving) -> None:
    """`create` returns the text, `stop`, and counts that add up."""
    async with client_of(served) as client:
        reply = await client.chat.completions.create(model="test-model", messages=MESSAGES)
    assert reply.choices[0].message.content == "Hello!"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 7  # six bytes and the end
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 7
    assert reply.id.startswith("gen-")


async def test_a_streamed_chat_equals_the_whole_one(served: Serving) -> None:
    """The stream's deltas joined are the whole text, and usage comes once, on its own chunk."""
    async with client_of(served) as client:
        stream = await client.chat.completions.create(
            model="test-model",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "Hello!"
    assert [c.usage.completion_tokens for c in chunks if c.usage] == [7]
    assert chunks[-1].choices == []
    assert len({chunk.id for chunk in chunks}) == 1


async def test_usage_rides_on_the_finish_chunk_when_not_asked_for(served: Serving) -> None:
    """Every chunk has a choice, so that clients which index `choices[0]` keep working."""
    async with client_of(served) as client:
        stream = await client.chat.completions.create(
            model="test-model", messages=MESSAGES, stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert all(len(chunk.choices) == 1 for chunk in chunks)
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


async def test_the_streaming_helper_accumulates_the_same_message(served: Serving) -> None:
    """The SDK's own accumulator agrees with the whole reply."""
    async with (
        client_of(served) as client,
        client.chat.completions.stream(model="test-model", messages=MESSAGES) as stream,
    ):
        reply = await stream.get_final_completion()
    assert reply.choices[0].message.content == "Hello!"
    assert reply.choices[0].message.role == "assistant"


@pytest.mark.parametrize("stream", [False, True])
async def test_bug_19_n_choices_come_under_their_own_indexes(
    served: Serving, *, stream: bool
) -> None:
    """Three choices, three reasons, and the usage of all."""
    async with client_of(served) as client:
        if stream:
            chunks = [
                chunk
                async for chunk in await client.chat.completions.create(
                    model="test-model", messages=MESSAGES, n=3, stream=True
                )
            ]
            texts = ["", "", ""]
            for chunk in chunks:
                texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
            usage = chunks[-1].usage
        else:
            reply = await client.chat.completions.create(model="test-model", messages=MESSAGES, n=3)
            texts = [choice.message.content or "" for choice in reply.choices]
            usage = reply.usage
    assert texts == ["Hello!"] * 3
    assert usage is not None
    assert usage.completion_tokens == 21


async def test_logprobs_carry_the_exact_bytes(served: Serving) -> None:
    """One entry per completion token, the asked number of alternatives, and bytes that join."""
    async with client_of(served) as client:
        reply = await client.chat.completions.create(
            model="test-model", messages=MESSAGES, logprobs=True, top_logprobs=2
        )
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 7
    spelled = bytes(byte for entry in logprobs.content for byte in entry.bytes or ())
    assert spelled.decode() == "Hello!"
    assert all(len(entry.top_logprobs) == 2 for entry in logprobs.content)


async def test_stop_strings_cut_the_text() -> None:
    """The stop string and what follows are not shown; the reason is `stop`."""
    async with serving(saying("one, two, three")) as served, client_of(served) as client:
        reply = await client.chat.completions.create(
            model="test-model", messages=MESSAGES, stop=[", th", "never"]
        )
    assert reply.choices[0].message.content == "one, two"
    assert reply.choices[0].finish_reason == "stop"


async def test_a_seed_repeats_the_text() -> None:
    """The same seed gives the same text, another one another."""
    async with serving(scripted_runner()) as served, client_of(served) as client:
        texts = [
            (
                await client.completions.create(
                    model="test-model", prompt="x", seed=seed, max_tokens=40
                )
            )
            .choices[0]
            .text
            for seed in (1, 1, 2)
        ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


async def test_completions_take_lists_of_prompts_and_token_ids(served: Serving) -> None:
    """Choices come prompt by prompt; usage counts each prompt once."""
    async with client_of(served) as client:
        reply = await client.completions.create(
            model="test-model", prompt=["ab", "cde"], n=2, max_tokens=3
        )
        by_ids = await client.completions.create(model="test-model", prompt=[[1, 2], [3]])
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == 5
    assert by_ids.usage is not None
    assert by_ids.usage.prompt_tokens == 3


async def test_models_are_listed_and_found_with_a_slash(served: Serving) -> None:
    """The list names limits and prices; an alias with a slash is found, encoded by the SDK."""
    async with client_of(served) as client:
        (model,) = [model async for model in client.models.list()]
        by_alias = await client.models.retrieve("openai/gpt-test")
    extra = model.model_extra or {}
    assert model.id == by_alias.id == "test-model"
    assert extra["context_length"] == 2048
    assert extra["pricing"]["prompt"] == "0.000001"


@pytest.mark.parametrize(
    ("options", "fields", "error", "code"),
    [
        ({"api_key": "sk-wrong-key"}, {}, openai.AuthenticationError, "invalid_api_key"),
        ({}, {"model": "nobody"}, openai.NotFoundError, "model_not_found"),
        ({}, {"temperature": 3}, openai.BadRequestError, None),
        ({}, {"messages": []}, openai.BadRequestError, None),
        ({}, {"tools": [{"type": "custom"}]}, openai.BadRequestError, "unsupported_parameter"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_bug_11_errors_are_the_same_streamed_or_not(
    served: Serving,
    options: dict[str, Any],
    fields: dict[str, Any],
    error: type[openai.APIStatusError],
    code: str | None,
    *,
    stream: bool,
) -> None:
    """What can be refused is refused before the stream begins, with a status of its own."""
    async with client_of(served, **options) as client:
        request: dict[str, Any] = {
            "model": "test-model",
            "messages": MESSAGES,
            "stream": stream,
            **fields,
        }
        with pytest.raises(error) as caught:
            await client.chat.completions.create(**request)
    if code is not None:
        assert caught.value.code == code
    assert caught.value.request_id is not None
    assert served.usage.events == []


async def test_the_openrouter_path_speaks_its_own_errors(served: Serving) -> None:
    """Under /api/v1 an unknown model is a 400 with an integer code."""
    response = await served.post(
        "/api/v1/chat/completions", {"model": "nobody", "messages": MESSAGES}
    )
    body = await response.json()
    assert response.status == 400
    assert body["error"]["code"] == 400


async def test_a_trailing_assistant_message_is_continued() -> None:
    """The reply is the continuation, from a prompt that ends inside the assistant's turn."""
    prompts = []
    async with (
        serving(
            saying("Hello!", on_execute=lambda b: prompts.append(b.token_ids.copy()))
        ) as served,
        client_of(served) as client,
    ):
        await client.chat.completions.create(
            model="test-model",
            messages=[*MESSAGES, {"role": "assistant", "content": "Sure: "}],
            max_tokens=1,
        )
        model: Any = served.server.models.find("test-model")
        assert model.tokenizer.decode(prompts[-1][0].tolist()).endswith("assistant\nSure: ")

"""An engine that fails in the middle: every stream says so, every client raises, nothing stays."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import orjson
import pytest
from openai.types.chat import ChatCompletionChunk

from provider_core.errors import StepFailed
from tests.serving import HERMES, KEY, Serving, saying, serving
from tests.sse_checker import check_stream

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
SAYINGS = {
    "text": "Hello, world! How are you?",
    "reasoning": "<think>Hello, world! How are you?</think>",
    "call": '<tool_call>\n{"name": "f", "arguments": {"a": "Hello, world"}}\n</tool_call>',
}


def failing(text: str, call: int) -> Any:
    """A factory of runners that fail at one call of many; the first calls are the prompt's."""
    return saying(text, failures={call: StepFailed("the backend failed")})


async def body_of(served: Serving, path: str, **fields: Any) -> bytes:
    """All bytes of a stream."""
    body = {"model": "test-model", "stream": True, **fields}
    reply = await served.post(path, body)
    assert reply.status == 200, await reply.text()
    return await reply.read()


async def read_into(texts: list[str], stream: AsyncIterator[ChatCompletionChunk]) -> None:
    """Read a stream to its end and keep the text as it comes."""
    async for chunk in stream:
        texts.append(chunk.choices[0].delta.content or "")  # noqa: PERF401 - it may end in between


@pytest.mark.parametrize(
    ("kind", "call"),
    [("text", 8), ("text", 20), ("reasoning", 16), ("reasoning", 30), ("call", 45), ("call", 60)],
)
async def test_bug_13_a_stream_that_fails_ends_with_an_error(kind: str, call: int) -> None:
    """BUG-13, BUG-31, BUG-33: the error, one reason, the terminator; one record, no slot held."""
    fields = {"messages": [{"role": "user", "content": "hi"}], "tools": TOOLS}
    for base in ("/v1", "/api/v1"):
        async with serving(failing(SAYINGS[kind], call), chat_template=HERMES) as served:
            body = await body_of(served, f"{base}/chat/completions", **fields)
            stream = check_stream(body, openrouter=base == "/api/v1")
            assert stream.error is not None
            assert stream.finish_reasons == {0: "error"}
            await served.settled()
            [event] = served.usage.events
            assert (event["status"], event["error_code"]) == ("error", "backend_error")


async def test_bug_13_every_choice_of_a_failed_stream_has_its_end() -> None:
    """Two choices, one failed step: whoever was in it ends with `error`, the other as ever."""
    async with serving(failing(SAYINGS["text"], 8)) as served:
        messages = [{"role": "user", "content": "hi"}]
        chat = await body_of(served, "/v1/chat/completions", messages=messages, n=2)
        reasons = check_stream(chat, num_choices=2).finish_reasons.values()
        assert "error" in reasons
        assert set(reasons) <= {"error", "stop"}
    async with serving(failing(SAYINGS["text"], 14)) as served:
        text = await body_of(served, "/v1/completions", prompt="hi", n=2, max_tokens=50)
        reasons = check_stream(text, kind="completion", num_choices=2).finish_reasons.values()
        assert "error" in reasons
        assert set(reasons) <= {"error", "stop"}


async def test_bug_13_the_package_raises_in_mid_stream() -> None:
    """What came before the failure was delivered, and the failure is no silent end."""
    async with (
        serving(failing(SAYINGS["text"], 8)) as served,
        openai.AsyncOpenAI(base_url=served.url + "/v1", api_key=KEY, max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(
            model="test-model", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        texts: list[str] = []
        with pytest.raises(openai.APIError, match="the backend failed") as caught:
            await read_into(texts, stream)
        assert "".join(texts)
        assert SAYINGS["text"].startswith("".join(texts))
        assert caught.value.code == "backend_error"


async def test_bug_13_a_failed_response_is_told_as_failed() -> None:
    """The Responses API ends with `response.failed`, which holds what came before."""
    async with (
        serving(failing(SAYINGS["text"], 8)) as served,
        openai.AsyncOpenAI(base_url=served.url + "/v1", api_key=KEY, max_retries=0) as client,
    ):
        events = [
            event
            async for event in await client.responses.create(
                model="test-model", input="hi", stream=True
            )
        ]
        await served.settled()
        [event] = served.usage.events
    assert [last.type for last in events[-2:]] == ["error", "response.failed"]
    failed: Any = events[-1]
    assert failed.response.status == "failed"
    assert failed.response.error.code == "server_error"
    assert SAYINGS["text"].startswith(failed.response.output_text)
    assert event["status"] == "error"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_bug_33_a_whole_answer_that_fails_has_a_status_of_its_own(path: str) -> None:
    """BUG-33: never an empty success."""
    async with serving(failing(SAYINGS["text"], 8)) as served:
        messages = [{"role": "user", "content": "hi"}]
        body = {"model": "test-model", "input": messages, "messages": messages}
        reply = await served.post(path, body)
        assert reply.status == 502
        assert orjson.loads(await reply.read())["error"]["code"] == "backend_error"


@pytest.mark.parametrize("stream", [False, True])
async def test_bug_29_cached_tokens_are_told(*, stream: bool) -> None:
    """BUG-29: the second time a long beginning costs less, and every API says by how much."""
    options = {"num_cache_blocks": 64, "cache_block_size": 16}
    async with (
        serving(saying("Hello!", **options)) as served,
        openai.AsyncOpenAI(base_url=served.url + "/v1", api_key=KEY, max_retries=0) as client,
    ):
        messages: Any = [{"role": "user", "content": "x" * 200}]
        counts = []
        for _ in range(2):
            if stream:
                chunks = [
                    chunk
                    async for chunk in await client.chat.completions.create(
                        model="test-model", messages=messages, stream=True
                    )
                ]
                usage = chunks[-1].usage
            else:
                reply = await client.chat.completions.create(model="test-model", messages=messages)
                usage = reply.usage
            assert usage is not None
            assert usage.prompt_tokens_details is not None
            counts.append(usage.prompt_tokens_details.cached_tokens)
        response = await client.responses.create(model="test-model", input=messages)
    assert counts[0] == 0
    assert counts[1] is not None
    assert counts[1] > 100
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == counts[1]

"""Comments that keep a silent stream alive, before its first token and between two."""

import asyncio
from collections.abc import Callable
from typing import Literal

import aiohttp
import openai
import pytest

from provider_core import StepFailed
from tests.pause import Pause
from tests.serving import KEY, Serving, saying, serving
from tests.sse_checker import check_stream

COMMENT = b": keep-alive\n\n"
KEEPALIVE_S = 0.05
LIMITS = {"sse_keepalive_s": KEEPALIVE_S}
PROMPTS: dict[str, dict[str, object]] = {
    "chat": {"messages": [{"role": "user", "content": "hi"}]},
    "completion": {"prompt": "hi"},
}
PATHS = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}


async def open_stream(
    served: Serving, kind: Literal["chat", "completion"] = "chat"
) -> aiohttp.ClientResponse:
    """A stream whose headers have come."""
    body = {"model": "test-model", "stream": True, **PROMPTS[kind]}
    return await served.session.post(served.url + PATHS[kind], json=body)


async def read_until(response: aiohttp.ClientResponse, is_enough: Callable[[bytes], bool]) -> bytes:
    """Read what comes until it is enough."""
    data = b""
    while not is_enough(data):
        data += await response.content.readany()
    return data


@pytest.mark.parametrize("kind", ["chat", "completion"])
@pytest.mark.parametrize("step", [1, 4])
async def test_bug_12_bug_32_silence_is_filled_with_comments(
    step: int, kind: Literal["chat", "completion"]
) -> None:
    """While nothing is generated comments come, and never an event without data."""
    pause = Pause(step)
    async with serving(saying("Hello!", on_execute=pause), limits=LIMITS) as served:
        response = await open_stream(served, kind)
        assert response.status == 200
        body = await read_until(response, lambda data: data.count(COMMENT) >= 3)
        pause.may_go_on.set()
        body += await response.read()
    stream = check_stream(body, kind=kind)
    assert stream.texts == {0: "Hello!"}
    assert stream.num_comments >= 3


async def test_bug_12_the_openai_client_reads_over_comments() -> None:
    """A pause of many comments does not show in what the SDK yields."""
    pause = Pause(1)
    async with (
        serving(saying("Hello!", on_execute=pause), limits=LIMITS) as served,
        openai.AsyncOpenAI(base_url=served.url + "/v1", api_key=KEY, max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(
            model="test-model", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        await asyncio.sleep(3 * KEEPALIVE_S)  # the silence under test
        pause.may_go_on.set()
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello!"


async def test_a_failure_behind_a_comment_is_an_event() -> None:
    """The status is sent by then, so the stream says it, once, and ends."""
    pause = Pause(1)
    runner = saying("Hello!", on_execute=pause, failures={0: StepFailed("lost")})
    async with serving(runner, limits=LIMITS) as served:
        response = await open_stream(served)
        assert response.status == 200
        body = await read_until(response, lambda data: COMMENT in data)
        pause.may_go_on.set()
        body += await response.read()
        await served.settled()
        assert [event["status"] for event in served.usage.events] == ["error"]
    stream = check_stream(body)
    assert stream.error is not None
    assert stream.error["code"] == "backend_error"


async def test_a_stream_that_is_not_silent_has_no_comments() -> None:
    """Tokens keep it alive."""
    limits = {"sse_keepalive_s": 0.4}
    async with serving(saying("x" * 200, step_time_s=0.004), limits=limits) as served:
        response = await open_stream(served)
        stream = check_stream(await response.read())
    assert stream.num_comments == 0

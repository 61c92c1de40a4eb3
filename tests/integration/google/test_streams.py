"""Google's streams in trouble: silence, failures, clients that leave, servers without room."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from google import genai
from google.genai import errors, types

from provider_core import StepFailed
from provider_core.dialects.google import SseEncoder
from tests.pause import Pause
from tests.serving import KEY, Serving, saying, serving

# The package subclasses aiohttp's session, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")

PATH = "/v1beta/models/test-model:streamGenerateContent"
BODY = {"contents": [{"parts": [{"text": "hi"}]}]}
REQUEST: Any = {"model": "test-model", "contents": "hi"}
LIMITS = {"sse_keepalive_s": 0.05}


@asynccontextmanager
async def client_of(served: Serving, **options: Any) -> AsyncIterator[genai.client.AsyncClient]:
    """The SDK's client, as a user makes it."""
    http = types.HttpOptions(base_url=served.url, **options)
    client = genai.Client(api_key=KEY, http_options=http).aio
    try:
        yield client
    finally:
        await client.aclose()


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("query", ["?alt=sse", ""])
async def test_bug_12_silence_is_filled_with_what_says_nothing(step: int, query: str) -> None:
    """Before the first text and between two; what comes joins to the same answer."""
    pause = Pause(step)
    keepalive = SseEncoder.keepalive if query else b"\n"
    async with serving(saying("Hello!", on_execute=pause), limits=LIMITS) as served:
        response = await served.session.post(served.url + PATH + query, json=BODY)
        raw = b""
        while raw.count(keepalive) < 5:
            raw += await response.content.readany()
        pause.may_go_on.set()
        raw += await response.read()
    if query:
        assert all(line.startswith(b"data: {") for line in raw.split(b"\n\n")[:-1])
        objects = [orjson.loads(line[6:]) for line in raw.split(b"\n\n")[:-1]]
    else:
        objects = orjson.loads(raw)
    parts = [part for o in objects for c in o["candidates"] for part in c["content"]["parts"]]
    assert "".join(part["text"] for part in parts) == "Hello!"


async def test_bug_12_the_client_reads_over_silence() -> None:
    """A chat too, whose history holds what was said and can be sent again."""
    pause = Pause(1)
    async with (
        serving(saying("Hello!", on_execute=pause), limits=LIMITS) as served,
        client_of(served) as client,
    ):
        chat = client.chats.create(model="test-model")
        pieces = []
        async for piece in await chat.send_message_stream("hi"):
            pieces.append(piece.text or "")
            pause.may_go_on.set()  # the first piece is what keeps the stream alive
        again = await chat.send_message("and again")
        history = chat.get_history(curated=True)

    assert pieces[0] == ""
    assert "".join(pieces) == again.text == "Hello!"
    assert history[0].role == "user"
    assert [turn.role for turn in history][-2:] == ["user", "model"]


async def test_bug_13_a_failure_in_a_stream_raises() -> None:
    """What came before it is there; the usage line says `error`."""
    runner = saying("Hello!", failures={3: StepFailed("lost")})
    texts = []
    async with serving(runner) as served, client_of(served) as client:
        stream = await client.models.generate_content_stream(**REQUEST)
        with pytest.raises(errors.ServerError) as caught:
            texts.extend([piece.text async for piece in stream])
        await served.settled()
        assert [event["status"] for event in served.usage.events] == ["error"]
    assert (caught.value.code, caught.value.status) == (502, "INTERNAL")


async def test_a_failure_before_the_first_event_has_a_status() -> None:
    """And is not tried again unless the client was told to."""
    failures = {i: StepFailed("lost") for i in range(3)}
    retries = types.HttpRetryOptions(attempts=3, initial_delay=0.01, max_delay=0.02)
    async with serving(saying("Hello!", failures=failures)) as served:
        async with client_of(served) as client:
            with pytest.raises(errors.ServerError):
                await client.models.generate_content(**REQUEST)
        async with client_of(served, retry_options=retries) as client:
            reply = await client.models.generate_content(**REQUEST)
        await served.settled()
        statuses = [event["status"] for event in served.usage.events]
    assert reply.text == "Hello!"
    assert statuses == ["error", "error", "error", "ok"]


async def test_bug_14_bug_24_a_client_that_leaves_stops_the_work() -> None:
    """One usage line, cancelled, and a free slot."""
    async with serving(saying("x" * 1000, step_time_s=0.002)) as served:
        response = await served.session.post(served.url + PATH + "?alt=sse", json=BODY)
        await response.content.readany()
        response.close()
        await served.settled()
        (event,) = served.usage.events
    assert event["status"] == "cancelled"
    assert event["generated_tokens"] < 1000


async def test_no_room_is_exhausted_and_says_when_to_come_again() -> None:
    """429 in every dialect, with the delay where Google's clients look for it."""
    pause = Pause(1)
    runner = saying("Hello!", on_execute=pause)
    limits = {"queue_factor": 0}
    async with (
        serving(runner, max_num_seqs=1, limits=limits) as served,
        client_of(served) as client,
    ):
        first = asyncio.create_task(client.models.generate_content(**REQUEST))
        await served.wait_until(lambda: bool(served.server.dispatcher.runs))
        with pytest.raises(errors.ClientError) as caught:
            await client.models.generate_content(**REQUEST)
        pause.may_go_on.set()
        await first
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
    (detail,) = caught.value.details["error"]["details"]
    assert detail["@type"].endswith("RetryInfo")
    assert detail["retryDelay"].endswith("s")


async def test_a_server_that_does_not_serve_is_unavailable() -> None:
    """503, so that nothing in front sends it more."""
    async with serving(load=False) as served, client_of(served) as client:
        with pytest.raises(errors.ServerError) as caught:
            await client.models.generate_content(**REQUEST)
    assert (caught.value.code, caught.value.status) == (503, "UNAVAILABLE")

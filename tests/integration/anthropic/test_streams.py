"""Anthropic's streams in trouble: silence, failures, clients that leave, servers without room."""

import asyncio
from typing import Any

import anthropic
import pytest

from provider_core import StepFailed
from tests.anthropic_sse_checker import check_message_stream
from tests.pause import Pause
from tests.serving import KEY, Serving, saying, serving

MESSAGES: Any = [{"role": "user", "content": "hi"}]
REQUEST: Any = {"model": "test-model", "max_tokens": 50, "messages": MESSAGES}
LIMITS = {"sse_keepalive_s": 0.05}
PING = b"event: ping\n"


def client_of(served: Serving, **options: Any) -> anthropic.AsyncAnthropic:
    """The SDK's client, as a user makes it."""
    return anthropic.AsyncAnthropic(
        base_url=served.url, **{"api_key": KEY, "max_retries": 0, **options}
    )


@pytest.mark.parametrize("step", [1, 4])
async def test_bug_12_bug_32_silence_is_filled_with_pings(step: int) -> None:
    """Before the message starts and inside a block; the client reads over them."""
    pause = Pause(step)
    async with serving(saying("Hello!", on_execute=pause), limits=LIMITS) as served:
        body = {**REQUEST, "stream": True}
        response = await served.session.post(served.url + "/v1/messages", json=body)
        raw = b""
        while raw.count(PING) < 3:
            raw += await response.content.readany()
        pause.may_go_on.set()
        raw += await response.read()
    checked = check_message_stream(raw)
    assert checked.num_pings >= 3
    assert checked.message is not None
    assert checked.message["content"] == [{"type": "text", "text": "Hello!"}]
    assert checked.start_usage is not None
    assert checked.start_usage["input_tokens"] == checked.message["usage"]["input_tokens"]


async def test_bug_12_the_client_reads_over_pings() -> None:
    """A pause of many does not show in what the SDK accumulates."""
    pause = Pause(1)
    async with (
        serving(saying("Hello!", on_execute=pause), limits=LIMITS) as served,
        client_of(served) as client,
        client.messages.stream(**REQUEST) as stream,
    ):
        pause.may_go_on.set()
        text = await stream.get_final_text()
    assert text == "Hello!"


async def test_bug_13_a_failure_in_a_stream_raises() -> None:
    """What came before it is there; the status was sent, and the usage line says `error`."""
    runner = saying("Hello!", failures={3: StepFailed("lost")})
    texts = []
    async with serving(runner) as served, client_of(served, max_retries=2) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            async with client.messages.stream(**REQUEST) as stream:
                texts.extend([text async for text in stream.text_stream])
        await served.settled()
        assert [event["status"] for event in served.usage.events] == ["error"]
    assert caught.value.type == "api_error"


async def test_a_failure_before_the_first_event_has_a_status() -> None:
    """The SDK tries again twice, as it does for every 5xx."""
    runner = saying("Hello!", failures={0: StepFailed("lost"), 1: StepFailed("lost")})
    async with serving(runner) as served, client_of(served, max_retries=2) as client:
        message = await client.messages.create(**REQUEST)
        await served.settled()
        statuses = [event["status"] for event in served.usage.events]
    assert message.stop_reason == "end_turn"
    assert statuses == ["error", "error", "ok"]


async def test_bug_14_bug_24_a_client_that_leaves_stops_the_work() -> None:
    """One usage line, cancelled, and a free slot."""
    async with (
        serving(saying("x" * 1000, step_time_s=0.002)) as served,
        client_of(served) as client,
    ):
        async with client.messages.stream(**REQUEST | {"max_tokens": 900}) as stream:
            async for _ in stream.text_stream:
                break
        await served.settled()
        (event,) = served.usage.events
    assert event["status"] == "cancelled"
    assert event["generated_tokens"] < 900


async def test_no_room_is_a_rate_limit_that_says_when_to_come_again() -> None:
    """429 in every dialect; the SDK obeys the delay."""
    pause = Pause(1)
    limits = {"queue_factor": 0}
    runner = saying("Hello!", on_execute=pause)
    async with (
        serving(runner, max_num_seqs=1, limits=limits) as served,
        client_of(served) as client,
    ):
        first = asyncio.create_task(client.messages.create(**REQUEST))
        await served.wait_until(lambda: bool(served.server.dispatcher.runs))
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.create(**REQUEST)
        pause.may_go_on.set()
        await first
    assert caught.value.type == "rate_limit_error"
    assert int(caught.value.response.headers["retry-after"]) >= 1


async def test_a_server_that_does_not_serve_is_overloaded() -> None:
    """529, which clients know from Anthropic itself."""
    async with serving(load=False) as served, client_of(served) as client:
        with pytest.raises(anthropic.OverloadedError) as caught:
            await client.messages.create(**REQUEST)
    assert caught.value.status_code == 529
    assert caught.value.type == "overloaded_error"

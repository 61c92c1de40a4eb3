"""Our server in front of another of ours, which gives text and no ids."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from provider_core.errors import ConfigurationError
from provider_upstream.discovery import find_upstream
from provider_upstream.piece_encoder import read_piece_encoder
from provider_upstream.settings import UpstreamSettings
from tests.integration.upstream.upstreams import UpstreamProcess, forwarding_to, upstream_process
from tests.serving import KEY, Serving, make_model_dir, serving
from tests.upstream_process import REPLY

MAX_MODEL_LEN = 2048
"""Of the upstream: what it would make of an answer that nobody ended, for 8 s."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[UpstreamProcess]:
    """One for the module."""
    with upstream_process() as running:
        yield running


@pytest.fixture
async def served(upstream: UpstreamProcess) -> AsyncIterator[Serving]:
    """A server in front of it."""
    async with serving(forwarding_to(upstream.url)) as running:
        assert upstream.ended() == ("ok", 1)  # the token that was tried at the start
        yield running


async def test_a_chat_is_answered(served: Serving, upstream: UpstreamProcess) -> None:
    """Its template, its limits and its bill are ours; the text is the upstream's."""
    response = await served.chat(max_tokens=20)
    body = await response.json()

    assert body["choices"][0]["message"]["content"] == REPLY[:20]
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 20
    assert upstream.ended() == ("ok", 20)


async def test_a_text_ends_as_the_upstream_ends_it(
    served: Serving, upstream: UpstreamProcess
) -> None:
    """The id of its end is counted, as the upstream counts it."""
    body = await (await served.chat()).json()

    assert body["choices"][0]["message"]["content"] == REPLY
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == len(REPLY) + 1
    assert upstream.ended() == ("ok", len(REPLY) + 1)


async def test_another_dialect_is_served(served: Serving, upstream: UpstreamProcess) -> None:
    """Whatever the upstream speaks."""
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "test-model", "max_tokens": 9, "messages": messages}

    answer = await (await served.post("/v1/messages", body)).json()

    assert answer["content"] == [{"type": "text", "text": REPLY[:9]}]
    assert answer["stop_reason"] == "max_tokens"
    assert upstream.ended() == ("ok", 9)


async def test_a_stop_string_ends_the_upstreams_work(
    served: Serving, upstream: UpstreamProcess
) -> None:
    """The core watches for it, and closes the connection."""
    body = await (await served.chat(stop="fox", ignore_eos=True)).json()

    assert body["choices"][0]["message"]["content"] == "The quick brown "
    status, num_generated = await asyncio.to_thread(upstream.ended)
    assert status == "cancelled"
    assert num_generated < MAX_MODEL_LEN - 100


async def test_a_client_that_leaves_ends_the_upstreams_work(
    served: Serving, upstream: UpstreamProcess
) -> None:
    """Its first token came through while the upstream was at work; then it left."""
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "test-model", "messages": messages, "stream": True, "ignore_eos": True}
    async with served.session.post(served.url + "/v1/chat/completions", json=body) as response:
        await response.content.readany()
    status, num_generated = await asyncio.to_thread(upstream.ended)

    assert status == "cancelled"
    assert num_generated < MAX_MODEL_LEN - 100
    await served.settled()
    (event,) = [line for line in served.usage.events if line["event"] == "usage.final"]
    assert event["status"] == "cancelled"
    assert event["completion_tokens"] <= num_generated


async def test_the_upstreams_death_breaks_off_and_bills_what_was_delivered() -> None:
    """A stream ends with an error; what comes later is refused, and probes say why."""
    with upstream_process() as upstream:
        async with serving(forwarding_to(upstream.url)) as served:
            messages = [{"role": "user", "content": "hi"}]
            body = {"model": "test-model", "messages": messages, "stream": True, "ignore_eos": True}
            url = served.url + "/v1/chat/completions"
            async with served.session.post(url, json=body) as response:
                received = await response.content.readany()
                upstream.process.kill()
                upstream.process.wait()
                received += await response.content.read()
            events = [event[6:] for event in received.split(b"\n\n") if event[:7] == b"data: {"]
            chunks = [json.loads(event) for event in events]
            text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
            assert chunks[-1]["error"]["code"] == "backend_error"
            assert REPLY.startswith(text)

            refused = await served.chat()
            assert refused.status == 503
            assert (await refused.json())["error"]["code"] == "upstream_unreachable"
            probe = await served.session.get(served.url + "/readyz")
            assert (probe.status, "cannot be reached" in await probe.text()) == (503, True)

            finals = [line for line in served.usage.events if line["event"] == "usage.final"]
            assert [line["status"] for line in finals] == ["error", "error"]
            assert [line["completion_tokens"] for line in finals] == [len(text), 0]


def test_what_cannot_be_used_stops_the_start(upstream: UpstreamProcess, tmp_path: Path) -> None:
    """A wrong key, an unknown model, nobody there: one line each."""
    encoder = read_piece_encoder(make_model_dir(tmp_path / "model"))
    found = {"base_url": upstream.url, "api_key": KEY}
    for options, says in (
        ({**found, "api_key": "sk-wrong"}, "refuses the key"),
        ({**found, "model": "other"}, "option model has to name one .*: test-model"),
        ({"base_url": "http://127.0.0.1:9/v1", "start_timeout_s": 0}, "does not answer for 0 s"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            find_upstream(UpstreamSettings.model_validate(options), encoder)

"""Our server in front of one that speaks as vLLM does, with token ids."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from provider_core.errors import Unavailable
from provider_core.interfaces import Batch
from provider_core.testing import ScriptedRunner
from provider_upstream import engine as upstream_engine
from tests.integration.upstream.upstreams import forwarding_to
from tests.serving import EOS, VOCAB_SIZE, Serving, ids_of, serving
from tests.vllm_wire import VllmWire

REPLY = "Grüße!"


@dataclass
class Held:
    """Keeps a runner from its next step."""

    may_run: threading.Event = field(default_factory=threading.Event)
    lets_prompts_through: bool = False

    def __call__(self, batch: Batch) -> None:
        """Before each step."""
        is_prompt = batch.num_computed_tokens[0] == 0
        assert (self.lets_prompts_through and is_prompt) or self.may_run.wait(30)


@dataclass
class Pair:
    """An upstream, and a server in front of it."""

    wire: VllmWire
    port: int
    served: Serving
    held: Held


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Both on this loop."""
    held = Held()
    held.may_run.set()
    runner = ScriptedRunner(
        max_model_len=500,
        vocab_size=VOCAB_SIZE,
        reply=[*ids_of(REPLY), EOS],
        on_execute=held,
        num_cache_blocks=64,
    )
    wire = VllmWire(runner)
    port = await wire.start()
    make = forwarding_to(f"http://127.0.0.1:{port}/v1")
    async with serving(make) as served:
        wire.bodies.clear()
        pair = Pair(wire, port, served, held)
        yield pair
        held.may_run.set()
    await pair.wire.stop()


def finals(served: Serving) -> list[dict[str, Any]]:
    """The bills."""
    return [line for line in served.usage.events if line["event"] == "usage.final"]


async def test_ids_pass_through(pair: Pair) -> None:
    """Half characters too; the upstream's limit is the model's."""
    body = await (await pair.served.chat()).json()

    assert body["choices"][0]["message"]["content"] == REPLY
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == len(REPLY.encode()) + 1
    (sent,) = pair.wire.bodies
    assert sent["model"] == "org/model"
    assert EOS in sent["stop_token_ids"]
    listed = await (await pair.served.session.get(pair.served.url + "/v1/models")).json()
    assert listed["data"][0]["context_length"] == 500


async def test_the_first_token_does_not_wait_for_the_second(pair: Pair) -> None:
    """It is with the client while the upstream stands still."""
    pair.held.may_run.clear()
    pair.held.lets_prompts_through = True
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "test-model", "messages": messages, "stream": True}
    async with pair.served.session.post(
        pair.served.url + "/v1/chat/completions", json=body
    ) as response:
        text = ""
        while not text:
            event = json.loads((await response.content.readuntil(b"\n\n"))[6:])
            text = event["choices"][0]["delta"].get("content") or ""
        assert not pair.held.may_run.is_set()
        assert text == REPLY[0]
        pair.held.may_run.set()


async def test_cached_tokens_pass_through(pair: Pair) -> None:
    """The upstream says them last; tenants have caches of their own there."""
    long = "once upon a time " * 4
    bodies = [await (await pair.served.chat(long)).json() for _ in range(2)]

    cached = [body["usage"]["prompt_tokens_details"]["cached_tokens"] for body in bodies]
    assert cached[0] == 0
    assert cached[1] > 0
    load = pair.served.server.models.find_ready("test-model").engine.load()
    assert load.num_cached_prompt_tokens == cached[1]
    num_prompt_tokens = sum(body["usage"]["prompt_tokens"] for body in bodies)
    assert load.num_prompt_tokens == num_prompt_tokens - cached[1]
    assert len({sent["cache_salt"] for sent in pair.wire.bodies}) == 1


async def test_log_probabilities_pass_through(pair: Pair) -> None:
    """With the ids of the alternatives."""
    response = await pair.served.chat(logprobs=True, top_logprobs=3, max_tokens=2, temperature=0)
    entries = (await response.json())["choices"][0]["logprobs"]["content"]

    assert [entry["token"] for entry in entries] == ["G", "r"]
    assert all(entry["top_logprobs"][0]["token"] == entry["token"] for entry in entries)
    assert all(len(entry["top_logprobs"]) == 3 for entry in entries)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_a": 0.5}, "top_a"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
async def test_what_no_upstream_does_is_refused_by_name(
    pair: Pair, fields: dict[str, Any], param: str
) -> None:
    """Before anything is sent or billed, and no listing shows it."""
    response = await pair.served.chat(**fields)
    error = (await response.json())["error"]

    assert (response.status, error["param"]) == (400, param)
    assert (pair.wire.bodies, finals(pair.served)) == ([], [])
    listed = await pair.served.session.get(pair.served.url + "/api/v1/models")
    shown = (await listed.json())["data"][0]["supported_parameters"]
    assert {"top_k", "logprobs"} <= set(shown)
    assert not {"top_a", "response_format", "structured_outputs"} & set(shown)


@pytest.mark.parametrize(
    ("upstream", "ours", "retry_after"),
    [(429, 429, "7"), (503, 503, "7"), (500, 502, None), (400, 502, None), (401, 502, None)],
)
async def test_a_refusal_costs_nothing(
    pair: Pair, upstream: int, ours: int, retry_after: str | None
) -> None:
    """Busy is busy; anything else is a failure of the backend."""
    pair.wire.statuses.append(upstream)
    response = await pair.served.chat()

    assert (response.status, response.headers.get("Retry-After")) == (ours, retry_after)
    (bill,) = finals(pair.served)
    assert (bill["status"], bill["completion_tokens"], bill["cost"]) == ("error", 0, "0")


async def test_a_client_that_leaves_closes_the_upstreams_connection(pair: Pair) -> None:
    """Also one that still waits for its first token."""
    pair.held.may_run.clear()
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "test-model", "messages": messages}
    request = pair.served.session.post(pair.served.url + "/v1/chat/completions", json=body)
    task = asyncio.create_task(request.__aenter__())
    await pair.served.wait_until(lambda: pair.wire.num_open == 1)
    task.cancel()
    await pair.served.wait_until(lambda: pair.wire.num_open == 0)
    pair.held.may_run.set()


async def test_an_upstream_that_returns_is_used_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then probes keep the traffic away."""
    monkeypatch.setattr(upstream_engine, "PROBE_S", 0.01)
    await pair.wire.stop()
    assert (await pair.served.chat()).status == 503
    assert (await pair.served.session.get(pair.served.url + "/readyz")).status == 503

    runner = ScriptedRunner(vocab_size=VOCAB_SIZE, reply=[*ids_of(REPLY), EOS])
    pair.wire = VllmWire(runner)
    await pair.wire.start(pair.port)
    model = pair.served.server.models.find_ready("test-model")

    def is_healthy() -> bool:
        try:
            model.engine.check_health()
        except Unavailable:
            return False
        return True

    await pair.served.wait_until(is_healthy)
    assert (await pair.served.session.get(pair.served.url + "/readyz")).status == 200
    assert (await pair.served.chat()).status == 200


async def test_text_that_takes_more_ids_than_were_made_is_cut() -> None:
    """No answer costs more than `max_tokens`, for which credits are reserved."""
    runner = ScriptedRunner(vocab_size=VOCAB_SIZE, reply=[ord("é")] * 20)  # two ids of ours each
    wire = VllmWire(runner, gives_ids=False)
    port = await wire.start()
    async with serving(forwarding_to(f"http://127.0.0.1:{port}/v1")) as served:
        body = await (await served.chat(max_tokens=6)).json()
        refused = await served.chat(logprobs=True)
        await served.wait_until(lambda: wire.num_open == 0)
    await wire.stop()

    assert body["choices"][0]["message"]["content"] == "ééé"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 6
    assert (refused.status, (await refused.json())["error"]["param"]) == (400, "logprobs")

"""Who is let in: a bounded queue, a server that is not ready, and deadlines."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from provider_core.engine.core import EngineCore
from provider_core.engine.sequence import make_sequence
from provider_core.errors import Overloaded
from provider_core.interfaces import Batch, EngineLoad
from provider_core.lifecycle import State
from provider_core.server.admission import PrefillRate, check_queue
from provider_core.settings import LimitSettings
from provider_core.testing import ScriptedEncoder, ScriptedRunner
from provider_core.types import GenerationRequest, ModelSpec, SamplingParams
from tests.serving import KEY, Serving, saying, serving
from tests.unit.engine.manual_clock import ManualClock

BODY = {"model": "test-model", "prompt": "hi"}
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
COMPLETIONS = "/v1/completions"


@asynccontextmanager
async def full_server(slots: int = 1, queue_factor: float = 1) -> AsyncIterator[Serving]:
    """Every slot and every place in the queue taken until the context ends."""
    may_run = threading.Event()

    def wait(_: Batch) -> None:
        may_run.wait()

    async with serving(
        saying("Hello!", on_execute=wait),
        max_num_seqs=slots,
        limits={"queue_factor": queue_factor},
    ) as served:
        room = slots + int(slots * queue_factor)
        engine = served.server.models.find("test-model").engine
        runs = served.server.dispatcher.runs
        requests = [asyncio.create_task(served.post(COMPLETIONS, BODY)) for _ in range(room)]
        await served.wait_until(lambda: len(runs) == room)
        await served.wait_until(lambda: engine.load().num_running == slots)
        yield served
        may_run.set()
        assert [reply.status for reply in await asyncio.gather(*requests)] == [200] * room
        await served.settled()
        assert len(served.usage.lines) == room


def check_retry_after(reply: aiohttp.ClientResponse) -> None:
    """Both forms are there, agree, and are short."""
    seconds, milliseconds = int(reply.headers["Retry-After"]), int(reply.headers["retry-after-ms"])
    assert 1 <= seconds <= 75
    assert 750 <= milliseconds <= 75_000
    assert seconds - 1 <= milliseconds / 1000 <= seconds


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [COMPLETIONS, "/v1/chat/completions"])
async def test_a_request_beyond_the_queue_is_shed(path: str, *, stream: bool) -> None:
    """429 with the time to come back; nothing is reserved and nothing billed."""
    body = {**BODY, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    async with full_server() as served:
        for _ in range(3):
            reply = await served.post(path, body)
            assert reply.status == 429
            assert (await reply.json())["error"]["code"] == "overloaded"
            check_retry_after(reply)
        assert len(served.server.dispatcher.runs) == served.server.ledger.num_open == 2
        assert served.usage.lines == []


async def test_a_request_is_shed_before_its_body_is_read() -> None:
    """The answer comes while the client still holds its body back."""
    async with full_server() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        head = [f"POST {COMPLETIONS} HTTP/1.1", "Host: a", "Content-Length: 1000000"]
        head += [f"{name}: {value}" for name, value in HEADERS.items()]
        writer.write("\r\n".join([*head, "", ""]).encode())
        assert await reader.readline() == b"HTTP/1.1 429 Too Many Requests\r\n"
        writer.transport.abort()


async def test_a_stranger_is_told_nothing_of_the_load() -> None:
    """Who has no key is asked for one, however full the server is."""
    async with full_server() as served:
        headers = {"Authorization": "Bearer sk-nobody-knows-this-one"}
        reply = await served.post(COMPLETIONS, BODY, headers=headers)
        assert reply.status == 401


async def test_choices_count_as_places() -> None:
    """A request of many choices may fill an idle server, not crowd a busy one."""
    async with serving(saying("Hello!"), max_num_seqs=1, limits={"queue_factor": 1}) as served:
        assert (await served.post(COMPLETIONS, {**BODY, "n": 4})).status == 200
    async with full_server(slots=1, queue_factor=2) as served:
        assert (await served.post(COMPLETIONS, {**BODY, "n": 2})).status == 429


@pytest.mark.parametrize("spend_limit", [None, "5"])
@pytest.mark.parametrize("path", [COMPLETIONS, "/v1/embeddings"])
async def test_a_burst_fills_the_queue_and_no_more(path: str, spend_limit: str | None) -> None:
    """Also when all of it is between the gate's questions, some of which wait for a database."""
    may_run = threading.Event()

    def wait(_: object) -> None:
        may_run.wait()

    def make_encoder(spec: ModelSpec) -> ScriptedEncoder:
        return ScriptedEncoder(max_num_seqs=1, max_model_len=spec.max_model_len, on_encode=wait)

    make = saying("Hello!", on_execute=wait) if path == COMPLETIONS else make_encoder
    async with serving(make, max_num_seqs=1, limits={"queue_factor": 2}) as served:
        assert served.server.keys is not None
        _, key = await served.server.keys.create(label="burst", spend_limit=spend_limit)
        headers = {"Authorization": f"Bearer {key}"}
        asked = [
            asyncio.create_task(served.post(path, {**BODY, "input": "hi"}, headers=headers))
            for _ in range(12)
        ]
        runs = served.server.dispatcher.runs
        await served.wait_until(
            lambda: len(runs) + sum(task.done() for task in asked) == len(asked)
        )
        num_let_in = len(runs)
        may_run.set()
        statuses = [reply.status for reply in await asyncio.gather(*asked)]
        assert num_let_in == statuses.count(200) == 3
        assert statuses.count(429) == 9


def load(**counts: int) -> EngineLoad:
    """An engine of four slots."""
    values: dict[str, Any] = {
        "num_running": 4,
        "num_waiting": 1,
        "num_waiting_prompt_tokens": 0,
        "num_slots": 4,
        "num_kv_tokens": 0,
        "num_steps": 0,
        "num_prompt_tokens": 0,
        "num_generated_tokens": 0,
        "step_started_s": None,
    }
    return EngineLoad(**{**values, **counts})


def test_a_predicted_wait_that_is_too_long_is_refused() -> None:
    """By prompt tokens ahead, over tokens a second; without a measurement nothing is predicted."""
    limits = LimitSettings(queue_wait_s=10)
    busy = load(num_waiting_prompt_tokens=900)
    check_queue(busy, limits, num_prompt_tokens=100, prefill_tokens_per_s=100)
    check_queue(busy, limits, num_prompt_tokens=10**6)
    with pytest.raises(Overloaded, match="predicted wait is over 10 s") as caught:
        check_queue(busy, limits, num_prompt_tokens=101, prefill_tokens_per_s=100)
    assert caught.value.retry_after_s is not None
    assert 7.5 <= caught.value.retry_after_s <= 12.6


@pytest.mark.parametrize(("queue_factor", "most"), [(0, 4), (0.25, 5), (2, 12)])
def test_the_queue_is_as_long_as_the_setting_says(queue_factor: float, most: int) -> None:
    """Slots, and so many times the slots waiting."""
    limits = LimitSettings(queue_factor=queue_factor)
    check_queue(load(num_waiting=most - 4 - 1), limits) if most > 4 else None
    with pytest.raises(Overloaded):
        check_queue(load(num_waiting=most - 4), limits)


async def test_before_it_is_ready_a_server_says_so() -> None:
    """It lives, is not ready, says why, and refuses politely."""
    async with serving(load=False) as served:
        served.server.lifecycle.advance(State.STARTING, "loading model test-model")
        for path in ("/readyz", "/ping", "/health"):
            reply = await served.session.get(served.url + path)
            assert reply.status == 503
            assert (await reply.json())["reason"] == "loading model test-model"
            assert int(reply.headers["Retry-After"]) >= 1
        assert (await served.session.get(served.url + "/livez")).status == 200
        assert (await served.session.get(served.url + "/startupz")).status == 503
        for path in (COMPLETIONS, "/v1/chat/completions"):
            reply = await served.post(path, BODY)
            assert reply.status == 503
            error = (await reply.json())["error"]
            assert error["code"] == "model_loading"
            assert "loading model test-model" in error["message"]
            check_retry_after(reply)
        await served.server.load()
        assert (await served.session.get(served.url + "/readyz")).status == 200
        assert (await served.post(COMPLETIONS, BODY)).status == 200


async def test_once_drained_new_work_is_refused_and_old_work_ends() -> None:
    """503 `draining` on connections that are still open, which are closed then."""
    may_run = threading.Event()

    def wait(_: Batch) -> None:
        may_run.wait()

    async with serving(saying("Hello!", on_execute=wait)) as served, connected(served) as early:
        running = asyncio.create_task(served.post(COMPLETIONS, BODY))
        await served.wait_until(lambda: bool(served.server.dispatcher.runs))
        draining = asyncio.create_task(served.server.drain())
        await served.wait_until(lambda: not served.server.lifecycle.is_ready)
        await served.wait_until(lambda: not served.server.lifecycle.is_serving)
        reply = await early.post(served.url + COMPLETIONS, json=BODY)
        assert (reply.status, reply.headers["Connection"]) == (503, "close")
        assert (await reply.json())["error"]["code"] == "draining"
        check_retry_after(reply)
        with pytest.raises(aiohttp.ClientConnectionError):
            await early.get(served.url + "/readyz")
        may_run.set()
        assert (await running).status == 200
        await draining
    assert [event["status"] for event in served.usage.events] == ["ok"]


@asynccontextmanager
async def connected(served: Serving) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with a connection of its own, kept open."""
    async with aiohttp.ClientSession(headers=served.session.headers) as session:
        async with session.get(served.url + "/livez") as reply:
            await reply.read()
        yield session


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_that_passes_before_the_first_token_is_504(*, stream: bool) -> None:
    """With a status of its own, streamed or not; settled as an error, the slot free."""
    runner = saying("Hello!", step_time_s=0.1)
    async with serving(runner) as served:
        reply = await served.post(
            COMPLETIONS, {**BODY, "stream": stream}, headers={"X-Request-Deadline-Ms": "30"}
        )
        assert reply.status == 504
        assert (await reply.json())["error"]["code"] == "deadline_exceeded"
        await served.settled()
        [event] = served.usage.events
        assert (event["status"], event["error_code"]) == ("error", "deadline_exceeded")
        assert (event["http_status"], event["cost"]) == (504, "0")
        assert (await served.post(COMPLETIONS, BODY)).status == 200


async def test_a_deadline_that_passes_in_the_queue_is_504() -> None:
    """A request that waits behind another's long work is told in time to go elsewhere."""
    async with serving(saying("x" * 100, step_time_s=0.005), max_num_seqs=1) as served:
        first = asyncio.create_task(served.post(COMPLETIONS, {**BODY, "max_tokens": 100}))
        await served.wait_until(lambda: bool(served.server.dispatcher.runs))
        reply = await served.post(COMPLETIONS, BODY, headers={"X-Request-Deadline-Ms": "20"})
        assert reply.status == 504
        assert not first.done()
        assert (await first).status == 200


async def test_a_deadline_that_passes_in_mid_stream_is_the_last_event() -> None:
    """An error event, then the terminator, as for every failure in mid-stream."""
    async with serving(saying("x" * 2000, step_time_s=0.005)) as served:
        reply = await served.post(
            COMPLETIONS,
            {**BODY, "stream": True, "max_tokens": 2000},
            headers={"X-Request-Deadline-Ms": "100"},
        )
        assert reply.status == 200
        *_, error, done = (await reply.text()).removesuffix("\n\n").split("\n\n")
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
        assert done == "data: [DONE]"
        [event] = served.usage.events
        assert event["status"] == "error"
        assert 0 < event["completion_tokens"] < 2000


@pytest.mark.parametrize(
    "value", ["0", "-1", "soon", "1.5", "", "9" * 13, "\u0661".encode().decode("latin-1")]
)
async def test_a_deadline_is_a_positive_integer(value: str) -> None:
    """What is none is refused by the header's name."""
    async with serving(saying("Hello!")) as served:
        reply = await served.post(COMPLETIONS, BODY, headers={"X-Request-Deadline-Ms": value})
        assert reply.status == 400
        error = (await reply.json())["error"]
        assert (error["param"], error["code"]) == ("x-request-deadline-ms", "invalid_header")


def test_the_prefill_rate_weighs_a_reading_by_what_it_lasted() -> None:
    """One slow chunk between decodes does not speak for a queue; what is long ago fades."""
    rate = PrefillRate()
    rate.observe(10, 0.01)
    assert rate.tokens_per_s == 0  # too little to say
    rate.observe(4_000, 4.0)
    rate.observe(4_016, 4.1)  # a chunk of 16 tokens in 0.1 s
    assert rate.tokens_per_s == pytest.approx(980, rel=0.02)
    rate.observe(4_016 + 200 * 60, 4.1 + 60)
    assert rate.tokens_per_s == pytest.approx(200, rel=0.05)


def test_a_reading_between_a_batch_and_its_duration_does_no_harm() -> None:
    """The counters of tokens and of seconds are read without a lock."""
    rate = PrefillRate()
    rate.observe(1_000, 1.0)
    rate.observe(1_512, 1.0)  # counted, its time not yet
    rate.observe(1_512, 1.5)
    assert rate.tokens_per_s == pytest.approx(1_000, rel=0.05)


async def test_a_reloaded_model_is_measured_anew() -> None:
    """Its engine's counters start at 0, and what the last one showed says nothing of it."""
    async with serving(saying("Hello!")) as served:
        models = served.server.models
        model = models.find("test-model")
        model.prefill_rate.observe(6_000_000, 6_000.0)
        await models.remove("test-model")
        await models.load(model.spec)
        for _ in range(3):
            assert (await served.post(COMPLETIONS, BODY)).status == 200
        assert models.find("test-model").prefill_rate is not model.prefill_rate


def test_cached_prompts_are_predicted_by_what_they_took() -> None:
    """The queue counts whole prompts, so the rate does: loading blocks is fast, not slow."""
    clock = ManualClock()

    def spend(batch: Batch) -> None:
        clock.now_s += batch.token_ids.size / 1_000 if batch.phase == "prefill" else 0.01

    runner = ScriptedRunner(max_num_seqs=8, num_cache_blocks=100, on_execute=spend)
    core = EngineCore(runner, prefill_chunk_tokens=512, max_kv_tokens=100_000, clock=clock)
    rate = PrefillRate()
    prompt = tuple(i % 250 for i in range(1_000))

    def add(number: int) -> None:
        request = GenerationRequest(
            request_id=str(number),
            prompt_token_ids=(*prompt, number, 7),
            sampling=SamplingParams(max_tokens=1),
        )
        core.add(make_sequence(request, lambda _: None, max_model_len=2048))

    for number in range(60):
        add(number)
        while core.scheduler.has_work:
            core.step()
        rate.observe(core.num_prompt_tokens + core.num_cached_prompt_tokens, core.prefill_s)
    before_s, num_waiting = clock.now_s, 12
    for number in range(num_waiting):
        add(number)
    while core.scheduler.has_work:
        core.step()
    predicted_s = num_waiting * 1_002 / rate.tokens_per_s
    assert predicted_s < 5 * (clock.now_s - before_s)

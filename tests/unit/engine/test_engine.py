"""The engine's thread behind the event loop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from provider_core.engine import LLMEngine
from provider_core.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineDead,
    InvalidRequest,
    StepFailed,
)
from provider_core.interfaces import Batch, Engine
from provider_core.testing import BlockingRunner, Recorder, ScriptedRunner, generate, submit
from provider_core.types import EngineOutput, GenerationRequest, SamplingParams
from tests.unit.engine.manual_clock import ManualClock

GREEDY = SamplingParams(max_tokens=5, temperature=0.0)
ENDLESS = SamplingParams(max_tokens=60, temperature=0.0)
PROMPT = (1, 2, 3)


def _runner(**options: Any) -> ScriptedRunner:  # whatever ScriptedRunner takes
    return ScriptedRunner(**({"max_num_seqs": 2, "max_model_len": 64} | options))


def _request(request_id: str, key: str = "") -> GenerationRequest:
    return GenerationRequest(
        request_id=request_id, prompt_token_ids=PROMPT, sampling=GREEDY, fairness_key=key
    )


@asynccontextmanager
async def _engine(runner: Any = None, **options: Any) -> AsyncIterator[LLMEngine]:  # any runner
    engine = LLMEngine(_runner() if runner is None else runner, **options)
    try:
        yield engine
    finally:
        await engine.close()


async def test_it_is_an_engine() -> None:
    """By protocol, and it knows its runner."""
    async with _engine() as engine:
        assert isinstance(engine, Engine)
        assert engine.info.backend == "scripted"


async def test_outputs_come_on_the_loops_thread() -> None:
    """Consumers need no locks."""
    threads = set()

    class Noting(Recorder):
        def __call__(self, output: EngineOutput) -> None:
            threads.add(threading.get_ident())
            super().__call__(output)

    async with _engine() as engine:
        recorder = Noting("a")
        request = submit(engine, "b", PROMPT, GREEDY)
        await request.result()
        engine.submit(_request("a"), recorder)
        await recorder.result()
    assert threads == {threading.get_ident()}


async def test_a_step_is_delivered_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """All outputs of all rows; the start of a sequence is told at once."""
    loop = asyncio.get_running_loop()
    calls = []
    call_soon_threadsafe = loop.call_soon_threadsafe

    def count(callback: Callable[..., None], *arguments: Any) -> Any:  # as the loop's own
        calls.append(callback)
        return call_soon_threadsafe(callback, *arguments)

    async with _engine(_runner(max_num_seqs=4)) as engine:
        monkeypatch.setattr(loop, "call_soon_threadsafe", count)
        recorders = [submit(engine, str(i), (i,), GREEDY) for i in range(4)]
        for recorder in recorders:
            await recorder.result()
        assert len(calls) <= engine.load().num_steps + 4
        assert sum(len(recorder.outputs) for recorder in recorders) == 4 + 20


async def test_an_idle_engine_stands_still() -> None:
    """No polling: not one step more after the last sequence ended."""
    async with _engine() as engine:
        await generate(engine, "a", PROMPT, GREEDY)
        steps = engine.load().num_steps
        # An abort of an unknown id is read by the thread, and makes no step either.
        engine._live.add("ghost")
        engine.abort("ghost")
        engine._live.discard("ghost")
        await generate(engine, "b", PROMPT, GREEDY)
        assert engine.load().num_steps == 2 * steps


async def test_load_counts_from_submission_to_the_last_output() -> None:
    """Also what the thread, busy with a step, has not seen."""
    runner = BlockingRunner(_runner())
    clock = ManualClock()
    async with _engine(runner, clock=clock) as engine:
        runner.hold()
        first = submit(engine, "a", PROMPT, GREEDY)
        await runner.is_inside()
        others = [submit(engine, str(i), PROMPT, GREEDY) for i in range(5)]
        load = engine.load()
        assert (load.num_running, load.num_waiting, load.num_slots) == (1, 5, 2)
        assert load.num_waiting_prompt_tokens == 18
        assert load.step_started_s == clock.now_s
        runner.let_go()
        for recorder in [first, *others]:
            await recorder.result()
        load = engine.load()
        assert (load.num_running, load.num_waiting) == (0, 0)
        assert load.num_waiting_prompt_tokens == 0
        assert load.num_kv_tokens == 0
        assert (load.num_prompt_tokens, load.num_generated_tokens) == (18, 30)
    assert engine.load().step_started_s is None


async def test_an_abort_within_a_step_frees_the_slot_for_the_next_one() -> None:
    """What that step made still comes; then the slot is the waiting sequence's."""
    inside, may_run = threading.Event(), threading.Event()
    phases: list[str] = []

    def stop_at_the_fifth(batch: Batch) -> None:
        phases.append(batch.phase)
        if len(phases) == 5:
            inside.set()
            may_run.wait()

    async with _engine(_runner(max_num_seqs=1, on_execute=stop_at_the_fifth)) as engine:
        running = submit(engine, "running", PROMPT, ENDLESS)
        waiting = submit(engine, "waiting", PROMPT, GREEDY)
        await asyncio.to_thread(inside.wait)
        engine.abort("running")
        may_run.set()
        assert (await running.result()).finish_reason == "abort"
        assert len(running.token_ids) == 5
        assert (await waiting.result()).finish_reason == "length"
    assert phases[:6] == ["prefill", *["decode"] * 4, "prefill"]


async def test_a_waiting_sequence_leaves_at_once_when_aborted() -> None:
    """It does not wait for a slot in order to end."""
    runner = BlockingRunner(_runner(max_num_seqs=1))
    async with _engine(runner) as engine:
        runner.hold()
        running = submit(engine, "running", PROMPT, GREEDY)
        await runner.is_inside()
        ended: list[str] = []

        def on_output(output: EngineOutput) -> None:
            if not running.finished.is_set():
                ended.append(str(output.finish_reason))

        engine.submit(_request("waiting"), on_output)
        engine.abort("waiting")
        runner.let_go()
        await running.result()
        assert ended == ["abort"]


async def test_a_deadline_in_the_past_is_an_error_without_work() -> None:
    """Before a slot, before a prefill."""
    clock = ManualClock()
    runner = _runner()
    async with _engine(runner, clock=clock) as engine:
        late = submit(engine, "late", PROMPT, GREEDY, deadline_s=clock.now_s)
        assert isinstance((await late.result()).error, DeadlineExceeded)
        assert runner.num_calls == 0


async def test_a_failed_step_leaves_a_healthy_engine() -> None:
    """The next request is served."""
    async with _engine(_runner(failures={1: StepFailed("lost")})) as engine:
        recorder = submit(engine, "a", PROMPT, GREEDY)
        assert isinstance((await recorder.result()).error, StepFailed)
        engine.check_health()
        assert len(await generate(engine, "b", PROMPT, GREEDY)) == 5


async def test_a_dead_engine_tells_everybody() -> None:
    """Every sequence ends with the error, then on_dead is called, then requests are refused."""
    told: asyncio.Future[EngineDead] = asyncio.get_running_loop().create_future()
    runner = _runner(failures={3: EngineDead("device lost")})
    async with _engine(runner, on_dead=told.set_result) as engine:
        recorders = [submit(engine, str(i), PROMPT, ENDLESS) for i in range(4)]
        error = await told
        assert all(recorder.finished.is_set() for recorder in recorders)
        assert all(isinstance(recorder.outputs[-1].error, EngineDead) for recorder in recorders)
        assert str(error) == "device lost"
        with pytest.raises(EngineDead, match="device lost"):
            engine.check_health()
        with pytest.raises(EngineDead, match="device lost"):
            submit(engine, "late", PROMPT, GREEDY)
        assert runner.is_closed
        assert engine.load().num_waiting == engine.load().num_running == 0


async def test_a_request_that_meets_a_dying_engine_is_answered() -> None:
    """Submitted after the thread's last look at the inbox, it still gets its one last output."""
    dying = threading.Event()
    may_die = threading.Event()

    class DiesSlowly(ScriptedRunner):
        def close(self) -> None:
            """Hold the thread after it gave up on its inbox."""
            dying.set()
            may_die.wait()

    runner = DiesSlowly(max_model_len=64, failures={0: EngineDead("device lost")})
    async with _engine(runner) as engine:
        submit(engine, "a", PROMPT, GREEDY)
        await asyncio.to_thread(dying.wait)
        late = submit(engine, "late", PROMPT, GREEDY)
        may_die.set()
        assert isinstance((await late.result()).error, EngineDead)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_an_exception_that_ends_threads_leaves_nobody_waiting(error: BaseException) -> None:
    """A library that calls exit() in the middle of a step."""

    def leave(batch: Batch) -> None:
        raise error

    told: asyncio.Future[EngineDead] = asyncio.get_running_loop().create_future()
    async with _engine(_runner(on_execute=leave), on_dead=told.set_result) as engine:
        recorder = submit(engine, "a", PROMPT, GREEDY)
        assert isinstance((await recorder.result()).error, EngineDead)
        assert isinstance((await told).__cause__, type(error))


async def test_a_runner_that_cannot_close_does_not_hold_up_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error goes where a thread's errors go, and `close` returns."""
    hooked: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", hooked.append)

    class CannotClose(ScriptedRunner):
        def close(self) -> None:
            """Fail."""
            raise RuntimeError("handle is busy")

    engine = LLMEngine(CannotClose())
    recorder = submit(engine, "a", PROMPT, ENDLESS)
    await engine.close()
    assert recorder.finished.is_set()
    assert [str(arguments.exc_value) for arguments in hooked] == ["handle is busy"]


async def test_a_callback_that_raises_does_not_starve_the_others() -> None:
    """The loop's exception handler hears of it."""
    reports: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reports.append(context))

    def break_down(output: EngineOutput) -> None:
        raise ValueError("no")

    async with _engine() as engine:
        engine.submit(_request("broken"), break_down)
        assert len(await generate(engine, "a", PROMPT, GREEDY)) == 5
    assert len(reports) == 1 + 5  # it was begun, and made five tokens
    assert isinstance(reports[0]["exception"], ValueError)


async def test_close_aborts_closes_the_runner_and_ends_the_thread() -> None:
    """Also when called twice at once."""
    runner = _runner()
    engine = LLMEngine(runner)
    recorder = submit(engine, "a", PROMPT, ENDLESS)
    await asyncio.gather(engine.close(), engine.close())
    assert recorder.finished.is_set()
    assert runner.is_closed
    assert not engine._thread.is_alive()
    with pytest.raises(EngineDead, match="closed"):
        engine.check_health()
    engine.abort("a")


async def test_the_runner_is_called_from_the_engines_thread_only() -> None:
    """As its contract promises."""
    threads = set()
    runner = _runner(on_execute=lambda batch: threads.add(threading.current_thread().name))
    async with _engine(runner) as engine:
        await generate(engine, "a", PROMPT, GREEDY)
    assert threads == {"engine"}


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "error"),
    [
        ((), 5, InvalidRequest),
        (tuple(range(64)), 5, ContextLengthExceeded),
        ((1, 256), 5, InvalidRequest),
        ((-1,), 5, InvalidRequest),
        (tuple(range(50)), 5, ContextLengthExceeded),
    ],
    ids=["empty", "too long", "id too high", "id negative", "over the memory"],
)
async def test_what_can_never_run_is_refused(
    prompt: tuple[int, ...], max_tokens: int, error: type[Exception]
) -> None:
    """At submission, and nothing stays behind."""
    async with _engine(max_kv_tokens=50) as engine:
        with pytest.raises(error):
            submit(engine, "a", prompt, SamplingParams(max_tokens=max_tokens))
        assert engine.load().num_waiting == 0
        assert len(await generate(engine, "a", PROMPT, GREEDY)) == 5


async def test_memory_for_less_than_a_slot_limits_the_length() -> None:
    """As the context does: a longer completion is cut, and the facts say so."""
    async with _engine(max_kv_tokens=50) as engine:
        assert engine.info.max_model_len == 50
        sampling = SamplingParams(max_tokens=60, temperature=0.0, ignore_eos=True)
        assert len(await generate(engine, "a", tuple(range(30)), sampling)) == 20


@pytest.mark.parametrize(("setting", "capacity"), [(None, 128), (100, 100), (1000, 128)])
async def test_a_full_memory_is_known_as_full(setting: int | None, capacity: int) -> None:
    """Two slots of 64 ids hold no more than is set, and never more than their lengths."""
    async with _engine(max_kv_tokens=setting) as engine:
        assert engine.load().max_kv_tokens == capacity


async def test_a_request_id_is_used_by_one_sequence_at_a_time() -> None:
    """A second one is our own mistake; after the first ended it is free again."""
    async with _engine() as engine:
        recorder = submit(engine, "a", PROMPT, GREEDY)
        with pytest.raises(ValueError, match="in use"):
            submit(engine, "a", PROMPT, GREEDY)
        await recorder.result()
        assert len(await generate(engine, "a", PROMPT, GREEDY)) == 5


async def test_a_longer_queue_of_one_key_does_not_delay_another_key() -> None:
    """With one slot, the quiet key's sequence comes right after the one that runs."""
    order: list[str] = []

    def note(name: str) -> Callable[[EngineOutput], None]:
        def on_output(output: EngineOutput) -> None:
            if output.finish_reason is not None:
                order.append(name)

        return on_output

    runner = BlockingRunner(_runner(max_num_seqs=1))
    async with _engine(runner) as engine:
        runner.hold()
        engine.submit(_request("l0", key="loud"), note("l0"))
        await runner.is_inside()
        for i in range(1, 10):
            engine.submit(_request(f"l{i}", key="loud"), note(f"l{i}"))
        engine.submit(_request("quiet", key="quiet"), note("quiet"))
        last = submit(engine, "last", PROMPT, GREEDY, fairness_key="loud")
        runner.let_go()
        await last.result()
        assert order[:4] == ["l0", "quiet", "l1", "l2"]

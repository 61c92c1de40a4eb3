"""Sequences that come, go and are cancelled in any order: nothing is lost, mixed up or left."""

import asyncio
import random
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.engine import LLMEngine
from provider_core.engine.core import EngineCore
from provider_core.engine.sequence import make_sequence
from provider_core.testing import Recorder, ScriptedRunner, submit
from provider_core.types import GenerationRequest, SamplingParams
from tests.unit.engine.candidate_runner import CandidateScriptedRunner

MAX_MODEL_LEN = 96
EOS = frozenset({3, 4, 5, 6, 7, 8})  # likely enough to come up in a vocabulary of 64


def _runner(
    max_num_seqs: int, *, mixes: bool = False, has_candidates: bool = False
) -> ScriptedRunner:
    make = CandidateScriptedRunner if has_candidates else ScriptedRunner
    return make(
        max_num_seqs=max_num_seqs, max_model_len=MAX_MODEL_LEN, vocab_size=64, mixes_phases=mixes
    )


def _request(name: str, length: int, params: SamplingParams, key: str = "") -> GenerationRequest:
    return GenerationRequest(
        request_id=name,
        prompt_token_ids=tuple((length * 7 + 5 * i) % 64 for i in range(length)),
        sampling=params,
        eos_token_ids=EOS,
        fairness_key=key,
    )


def _run_alone(request: GenerationRequest) -> list[int]:
    core = EngineCore(_runner(1), prefill_chunk_tokens=1000, max_kv_tokens=10_000, clock=time)
    recorder = Recorder(request.request_id)
    core.add(make_sequence(request, recorder, max_model_len=MAX_MODEL_LEN))
    while core.scheduler.has_work:
        core.step()
    _deliver(core)
    return recorder.token_ids


def _deliver(core: EngineCore) -> None:
    for on_output, output in core.take_outputs()[0]:
        on_output(output)


ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 12),  # the step it comes in
        st.integers(1, 40),  # prompt length
        st.integers(1, 14),  # max_tokens
        st.sampled_from([None, None, 0, 1, 5]),  # steps until it is aborted
        st.sampled_from(["a", "b", "c"]),  # fairness key
        st.sampled_from([0.0, 1.0]),  # temperature
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=80, deadline=None)
@given(
    arrivals=ARRIVALS,
    max_num_seqs=st.integers(1, 5),
    chunk=st.sampled_from([3, 7, 16, 64]),
    max_kv_tokens=st.sampled_from([54, 120, 10_000]),
    mixes=st.booleans(),
    has_candidates=st.booleans(),
)
def test_any_arrivals_end_once_with_the_text_they_make_alone(
    arrivals: list[tuple[int, int, int, int | None, str, float]],
    max_num_seqs: int,
    chunk: int,
    max_kv_tokens: int,
    *,
    mixes: bool,
    has_candidates: bool,
) -> None:
    """Aborted ones have a beginning of it. At the end no slot and no token is held."""
    core = EngineCore(
        _runner(max_num_seqs, mixes=mixes, has_candidates=has_candidates),
        prefill_chunk_tokens=chunk,
        max_kv_tokens=max_kv_tokens,
        clock=time,
    )
    requests, recorders = [], []
    for i, (_, length, max_tokens, _, key, temperature) in enumerate(arrivals):
        params = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=i)
        requests.append(_request(str(i), length, params, key))
        recorders.append(Recorder(str(i)))
    num_steps = 0
    while num_steps <= 20 or core.scheduler.has_work:
        for i, (start, _, _, abort_after, _, _) in enumerate(arrivals):
            if start == num_steps:
                core.add(make_sequence(requests[i], recorders[i], max_model_len=MAX_MODEL_LEN))
            if abort_after is not None and start + abort_after == num_steps:
                core.abort(str(i))
        core.step()
        _deliver(core)
        assert core.scheduler.num_running <= max_num_seqs
        num_steps += 1
        assert num_steps < 3000, "somebody starves"
    for request, recorder, (_, _, _, abort_after, _, _) in zip(
        requests, recorders, arrivals, strict=True
    ):
        assert sum(output.finish_reason is not None for output in recorder.outputs) == 1
        assert recorder.violation is None
        alone = _run_alone(request)
        reason = recorder.outputs[-1].finish_reason
        if reason == "abort":
            assert abort_after is not None
            assert recorder.token_ids == alone[: len(recorder.token_ids)]
        else:
            assert recorder.token_ids == alone
    scheduler = core.scheduler
    assert (scheduler.num_running, scheduler.num_kv_tokens, len(scheduler.waiting)) == (0, 0, 0)
    assert scheduler._pool.num_reserved_tokens == 0
    assert core._sequences == {}
    assert core.num_settled_prompt_tokens == sum(length for _, length, *_ in arrivals)


async def test_a_thousand_requests_with_random_aborts_leave_nothing_behind() -> None:
    """Through the thread: each ends exactly once, and the load is zero."""
    rng = random.Random(20)  # noqa: S311 - a fixed seed is the point
    engine = LLMEngine(_runner(8), prefill_chunk_tokens=32)
    try:
        recorders = []
        for i in range(1000):
            params = SamplingParams(
                max_tokens=rng.randint(1, 12), temperature=rng.choice([0.0, 1.0]), seed=i
            )
            request = _request(str(i), rng.randint(1, 40), params)
            recorders.append(
                submit(
                    engine,
                    str(i),
                    request.prompt_token_ids,
                    params,
                    eos_token_ids=EOS,
                    fairness_key=rng.choice("abc"),
                )
            )
            if rng.random() < 0.4:
                engine.abort(str(rng.randrange(i + 1)))
            if rng.random() < 0.3:
                await asyncio.sleep(0)
            if rng.random() < 0.02:
                await recorders[i // 2].result()
        for recorder in recorders:
            await recorder.result()
        load = engine.load()
        assert (load.num_running, load.num_waiting, load.num_kv_tokens) == (0, 0, 0)
        assert load.num_waiting_prompt_tokens == 0
        assert engine._live == set()
        assert engine._core._sequences == {}
        assert engine._core.scheduler._pool.num_reserved_tokens == 0
        reasons = {recorder.outputs[-1].finish_reason for recorder in recorders}
        assert reasons == {"stop", "length", "abort"}
    finally:
        await engine.close()

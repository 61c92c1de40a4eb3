"""A core over a runner with candidates: the texts of one without, faults, and what is fetched."""

import gc
import random
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from provider_core.engine.constraints import ConstrainedSequence
from provider_core.errors import EngineDead, StepFailed
from provider_core.testing import ScriptedRunner
from tests.unit.engine.candidate_runner import CandidateScriptedRunner
from tests.unit.engine.core_bench import EOS, Bench
from tests.unit.engine.scripted_grammar import ScriptedGrammar

MIXED_TRAFFIC: dict[str, dict[str, Any]] = {
    "greedy": {},
    "logprobs": {"logprobs": 3},
    "sampled": {"temperature": 1.0, "seed": 3},
    "nucleus": {"temperature": 0.8, "top_p": 0.9, "seed": 4, "logprobs": 0},
    "penalty": {"frequency_penalty": 1.0},
    "held back": {"temperature": 1.0, "seed": 5, "min_tokens": 6},
    "prompt": {"prompt_logprobs": 2},
}


def run_traffic(make_runner: Any, **options: Any) -> dict[str, list[int]]:
    """The ids of each, all running together."""
    bench = Bench(make_runner=make_runner, max_num_seqs=4, spread=4.0, **options)
    for i, (name, params) in enumerate(MIXED_TRAFFIC.items()):
        bench.add(name, *range(1, 8 + i), max_tokens=12, **params)
        bench.step()
    grammar = ScriptedGrammar(*([range(0, 256, 3)] * 12))
    bench.add("grammar", 5, 6, max_tokens=12, temperature=1.0, seed=9, grammar=grammar)
    bench.run()
    return {name: bench.ids(name) for name in bench.outputs}


@pytest.mark.parametrize(
    "options", [{}, {"speculates": True, "num_distributions": 3}, {"mixes_phases": True}]
)
@pytest.mark.parametrize("max_candidates", [4, 64])
def test_texts_are_those_of_whole_logits(options: dict[str, Any], max_candidates: int) -> None:
    """Whatever else decides how a token comes about: a draft, a mixed call, or a decode."""
    expected = run_traffic(ScriptedRunner, **options)
    make_runner = partial(CandidateScriptedRunner, max_candidates=max_candidates)
    assert run_traffic(make_runner, **options) == expected


def run_random_traffic(seed: int, make_runner: Any, **options: Any) -> dict[str, Any]:
    """Ids and endings of texts with any parameters, some with grammars."""
    rng = random.Random(seed)  # noqa: S311 - repeatable
    bench = Bench(make_runner=make_runner, max_num_seqs=3, vocab_size=64, **options)
    for i in range(rng.randint(2, 9)):
        params: dict[str, Any] = {
            "max_tokens": rng.randint(1, 14),
            "temperature": rng.choice([0.0, 0.0, 0.3, 1.0, 1.5]),
            "seed": i,
            "top_p": rng.choice([1.0, 1.0, 0.5, 0.95]),
            "top_k": rng.choice([0, 0, 3, 40]),
            "min_p": rng.choice([0.0, 0.0, 0.1]),
            "top_a": rng.choice([0.0, 0.0, 0.0, 0.2]),
            "logprobs": rng.choice([None, None, 0, 3]),
            "frequency_penalty": rng.choice([0.0, 0.0, 0.0, 0.7]),
            "min_tokens": rng.choice([0, 0, 4]),
        }
        prompt = [rng.randrange(64) for _ in range(rng.randint(1, 20))]
        steps = [{EOS, *rng.sample(range(64), rng.choice([2, 10, 40]))} for _ in range(14)]
        grammar = ScriptedGrammar(*steps)
        bench.add(str(i), *prompt, grammar=rng.choice([grammar, None]), **params)
        bench.step(rng.randint(0, 4))
    bench.run()
    return {name: (bench.ids(name), bench.last(name).finish_reason) for name in bench.outputs}


@pytest.mark.parametrize("max_candidates", [1, 4, 16, 64])
def test_random_traffic_is_that_of_whole_logits(
    monkeypatch: pytest.MonkeyPatch, max_candidates: int
) -> None:
    """Whether masks are ready or late, rows are alone or not, drafts are tried or calls mixed."""
    ready_bitmask, rng = ConstrainedSequence.ready_bitmask, random.Random(1)  # noqa: S311 - as above

    def maybe_late(sequence: ConstrainedSequence) -> Any:
        return ready_bitmask(sequence) if rng.random() < 0.5 else None

    monkeypatch.setattr(ConstrainedSequence, "ready_bitmask", maybe_late)
    make_runner = partial(CandidateScriptedRunner, max_candidates=max_candidates)
    ways: list[dict[str, Any]] = [
        {},
        {"speculates": True, "num_distributions": 3},
        {"mixes_phases": True},
        {"spread": 5.0},
    ]
    for seed in range(20):
        options = ways[seed % len(ways)]
        expected = run_random_traffic(seed, ScriptedRunner, **options)
        assert run_random_traffic(seed, make_runner, **options) == expected, seed


def test_greedy_traffic_brings_no_row() -> None:
    """From the prompt to the last id."""
    bench = Bench(make_runner=CandidateScriptedRunner)
    for name in "abc":
        bench.add(name, logprobs=2)
    bench.run()
    assert isinstance(bench.runner, CandidateScriptedRunner)
    assert (bench.runner.num_whole_rows, bench.runner.fetched) == (0, [])
    assert len(bench.ids("a")) == 5


def test_texts_that_ended_are_let_go() -> None:
    """Nobody keeps a prompt, or what its grammar holds, because nothing else came."""
    bench = Bench(make_runner=CandidateScriptedRunner)
    grammar = ScriptedGrammar(*([{1, 2}] * 5))
    kept = weakref.ref(grammar)
    bench.add("a", grammar=grammar)
    del grammar
    bench.run()
    assert len(bench.ids("a")) == 5
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("make_runner", [CandidateScriptedRunner, ScriptedRunner])
def test_texts_that_are_dropped_at_the_end_are_let_go(make_runner: Any) -> None:
    """Whoever still holds a closed engine holds none of them."""
    bench = Bench(make_runner=make_runner)
    grammar = ScriptedGrammar(*([{1, 2}] * 5))
    kept = weakref.ref(grammar)
    bench.add("a", grammar=grammar)
    del grammar
    bench.step(2)
    bench.core.abort_all()
    bench.deliver()
    assert bench.last("a").finish_reason == "abort"
    gc.collect()
    assert kept() is None


def test_a_batch_of_edited_rows_is_asked_for_whole() -> None:
    """Candidates that nobody reads would come for nothing."""
    bench = Bench(make_runner=CandidateScriptedRunner)
    bench.add("a", frequency_penalty=1.0)
    bench.run()
    assert isinstance(bench.runner, CandidateScriptedRunner)
    assert (bench.runner.num_whole_rows, bench.runner.fetched) == (5, [])


def test_a_row_of_nan_fails_alone() -> None:
    """Seen by its sum, and fetched to be sure."""

    def corrupt(_batch: Any, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if len(logits) == 2:
            logits[1, 7] = np.nan
        return logits

    bench = Bench(make_runner=CandidateScriptedRunner, corrupt=corrupt)
    bench.add("well", 1, 2, 3)
    bench.step()
    bench.add("ill", 4, 5, 6)
    bench.run()
    assert bench.last("well").finish_reason == "length"
    assert isinstance(bench.last("ill").error, StepFailed)


class BrokenFetch(CandidateScriptedRunner):
    """Chooses, and cannot fetch."""

    error: Exception

    def fetch_logits(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Fail."""
        raise self.error


def test_a_fetch_that_fails_is_a_step_that_fails() -> None:
    """And the engine goes on."""
    bench = Bench(make_runner=BrokenFetch)
    assert isinstance(bench.runner, BrokenFetch)
    bench.runner.error = StepFailed("lost")
    bench.add("a")
    bench.step()
    bench.add("b", frequency_penalty=1.0)
    bench.run()
    assert isinstance(bench.last("b").error, StepFailed)
    bench.add("c")
    bench.run()
    assert bench.last("c").finish_reason == "length"


def test_a_device_that_is_gone_is_no_step_that_fails() -> None:
    """Nothing more can be run."""
    bench = Bench(make_runner=BrokenFetch)
    assert isinstance(bench.runner, BrokenFetch)
    bench.runner.error = EngineDead("gone")
    bench.add("a")
    bench.step()
    bench.add("b", frequency_penalty=1.0)
    with pytest.raises(EngineDead, match="gone"):
        bench.step(5)

"""A core over a runner with candidates: the texts of one without, faults, and what is fetched."""

import gc
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from provider_core.errors import EngineDead, StepFailed
from provider_core.testing import ScriptedRunner
from tests.unit.engine.candidate_runner import CandidateScriptedRunner
from tests.unit.engine.core_bench import Bench
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

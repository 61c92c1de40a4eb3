"""Verifying drafts changes when tokens come, and nothing about them."""

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from provider_core.errors import StepFailed
from provider_core.interfaces import Batch
from tests.unit.engine.speculation_bench import COPY, EOS, PROMPT, Recorder, copying


def test_a_repeated_prompt_takes_fewer_calls() -> None:
    """Several ids come in one output, and all of them are those of the script."""
    bench = copying()
    bench.add("a")
    bench.run()
    assert bench.result() == (COPY, "stop", EOS)
    assert bench.num_verified >= 1
    assert len(bench.batches) < len(COPY)
    assert max(len(output.token_ids) for output in bench.outputs["a"]) > 1
    assert bench.core.num_generated_tokens == len(COPY)


def test_drafted_and_accepted_ids_are_counted() -> None:
    """An id counts as accepted if it was drafted and drawn."""
    bench = copying()
    bench.add("a")
    bench.run()
    speculator = bench.core.speculator
    assert speculator is not None
    drafted = sum(logits - 1 for phase, _, logits in bench.batches if phase == "prefill")
    assert speculator.num_draft_tokens == drafted
    saved = len(COPY) - len(bench.batches)
    assert speculator.num_accepted_tokens == saved


def test_nothing_is_verified_when_it_is_off() -> None:
    """The prompt's call, then one decode per id."""
    bench = copying(speculates=False)
    bench.add("a")
    bench.run()
    assert bench.result() == (COPY, "stop", EOS)
    assert bench.batches == [("prefill", len(PROMPT), 1)] + [("decode", 1, 1)] * (len(COPY) - 1)


@pytest.mark.parametrize("max_tokens", range(1, 13))
def test_max_tokens_are_kept_exactly(max_tokens: int) -> None:
    """Wherever in a run of accepted ids they end, and no position beyond is run."""
    bench = copying()
    bench.add("a", max_tokens=max_tokens)
    bench.run()
    assert bench.result() == (COPY[:max_tokens], "length", None)
    assert bench.core.num_generated_tokens == max_tokens
    assert bench.furthest <= len(PROMPT) + max_tokens - 1  # the last is never run
    assert bench.core.scheduler.num_kv_tokens == 0


def test_a_stop_token_inside_accepted_ids_ends_there() -> None:
    """What was accepted behind it is dropped and not counted."""
    bench = copying()
    bench.add("a", stop_token_ids=frozenset({6}))
    bench.run()
    assert bench.result() == ([3, 4, 5, 6], "stop", 6)
    assert bench.core.num_generated_tokens == 4
    assert bench.num_verified == 1


def test_the_slot_is_never_run_beyond_its_length() -> None:
    """The runner would fail on a position that a slot does not have."""
    prompt = (1, 2) * 20
    bench = Recorder(scripts={prompt: [1, 2] * 20})
    bench.add("a", prompt, max_tokens=1000)
    bench.run()
    assert bench.result() == ([1, 2] * 12, "length", None)
    assert bench.furthest <= 63
    assert bench.num_verified >= 1


PARAMS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"temperature": 1.0},
    "top_p": {"temperature": 1.5, "top_p": 0.8},
    "penalties": {"frequency_penalty": 0.7, "presence_penalty": 0.2, "repetition_penalty": 1.3},
    "drawn with penalties": {"temperature": 1.0, "repetition_penalty": 1.2},
    "min_tokens": {"min_tokens": 20},
    "bias": {"logit_bias": ((1, 1.0), (2, -1.0))},
    "logprobs": {"logprobs": 2, "temperature": 1.0},
    "stop tokens": {"stop_token_ids": frozenset({3}), "min_tokens": 4, "logprobs": 0},
    "all": {
        "temperature": 0.9,
        "top_k": 3,
        "frequency_penalty": 0.4,
        "min_tokens": 9,
        "logit_bias": ((2, 0.5),),
        "logprobs": 1,
    },
}


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS.keys())
@pytest.mark.parametrize("num_sequences", [1, 2, 3])
def test_every_id_is_the_one_without(params: dict[str, Any], num_sequences: int) -> None:
    """A small vocabulary finds drafts everywhere, many of them wrong."""
    rng = random.Random(7)  # noqa: S311 - repeatable, not secret
    num_verified = 0
    for seed in range(12):
        prompts = [tuple(rng.choices(range(1, 6), k=20)) for _ in range(num_sequences)]
        benches = []
        for speculates in (True, False):
            bench = Recorder(speculates=speculates, vocab_size=6, spread=1.0, seed=seed)
            for i, prompt in enumerate(prompts):
                bench.add(str(i), prompt, **({"seed": seed * 10 + i} | params))
            bench.run()
            benches.append(bench)
        on, off = benches
        for i in range(num_sequences):
            assert on.result(str(i)) == off.result(str(i))
            assert on.logprobs(str(i)) == off.logprobs(str(i))
        assert on.core.num_generated_tokens == off.core.num_generated_tokens
        num_verified += on.num_verified
    assert num_verified > 10


def test_two_rows_that_end_in_one_step_leave_no_hole() -> None:
    """The first row ends in the middle of the step and the second moves into its slot."""
    prompts = (1, 2, 3, 4, 5, 6, 1, 2), (9, 8, 7, 6, 5, 4, 9, 8)
    scripts = {prompts[0]: [3, 4, 5, EOS], prompts[1]: [7, 6, 5, 4, 9, 8, 7, 20, 21, EOS]}
    bench = Recorder(scripts=scripts)
    bench.add("a", prompts[0])
    bench.add("b", prompts[1])
    bench.run()
    assert bench.ids("a") == scripts[prompts[0]]
    assert bench.ids("b") == scripts[prompts[1]]
    assert bench.num_verified >= 2


def test_a_row_that_ends_inside_its_draft_owes_nobody_a_decode() -> None:
    """All its choices were clear, so the other row goes on with drafts."""
    prompts = (1, 2, 3, 4, 5, 6, 1, 2), (9, 8, 7, 6, 5, 4, 9, 8)
    bench = Recorder(scripts={prompts[0]: [3, 4, 5], prompts[1]: [7, 6, 5, 4, 9, 8] * 4})
    bench.add("a", prompts[0], stop_token_ids=frozenset({4}))
    bench.add("b", prompts[1])
    while not bench.outputs["a"] or bench.outputs["a"][-1].finish_reason is None:
        bench.step()
    assert bench.batches[-2][2] > 1  # both were verified in the step that ended one
    bench.step()
    assert bench.batches[-1][2] > 1


def test_a_row_that_a_move_loses_is_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row ends, the runner cannot move the second, and that one ends with an error."""
    prompts = (1, 2, 3, 4, 5, 6, 1, 2), (9, 8, 7, 6, 5, 4, 9, 8)
    bench = Recorder(scripts={prompts[0]: [3, 4, EOS], prompts[1]: [7, 6, 5, 4, 9, 8, 7]})

    def lose(source: int, target: int, num_tokens: int) -> None:
        raise RuntimeError(f"no way from {source} to {target} for {num_tokens}")

    monkeypatch.setattr(bench.runner, "move_slot", lose)
    bench.add("a", prompts[0])
    bench.add("b", prompts[1])
    bench.run()
    assert bench.result("a") == ([3, 4, EOS], "stop", EOS)
    assert isinstance(bench.outputs["b"][-1].error, StepFailed)
    assert bench.core.scheduler.num_running == 0
    assert bench.batches[-1][2] > 1  # it was in a step that verified
    assert bench.num_verified == 1


def test_three_rows_decode() -> None:
    """They share the reading of the weights."""
    bench = copying()
    for name in "abc":
        bench.add(name)
    bench.run()
    assert [bench.ids(name) for name in "abc"] == [COPY] * 3
    assert bench.num_verified == 0


def test_an_unclear_choice_is_left_to_a_decode() -> None:
    """Two ids whose logits nearly agree: the kernels' rounding may order them differently."""

    def tie(batch: Batch, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """After 5 and 6 comes 7 by a hair, in a verifying call 30."""
        for row, token_id in enumerate(batch.token_ids[0, -batch.num_logits :]):
            if token_id == 6:
                logits[row, 30] = logits[row, 7] + (0.01 if batch.num_logits > 1 else -0.01)
        return logits

    bench = copying(corrupt=tie)
    bench.add("a")
    bench.run()
    assert bench.result() == (COPY, "stop", EOS)
    unclear = next(i for i, (*_, num_logits) in enumerate(bench.batches) if num_logits > 1)
    assert bench.batches[unclear + 1] == ("decode", 1, 1)


def test_a_runner_whose_prefill_is_no_decode_verifies_nothing() -> None:
    """Other weights would choose other ids."""
    bench = copying(verify_margin=None)
    bench.add("a")
    bench.run()
    assert bench.result() == (COPY, "stop", EOS)
    assert bench.num_verified == 0


@pytest.mark.parametrize("name", ["greedy", "penalties", "min_tokens", "stop tokens"])
def test_what_the_margin_allows_changes_no_greedy_id(name: str) -> None:
    """Logits of a verifying call are off by up to half the margin, each by its own noise."""
    noise = np.random.default_rng(4)

    def disturb(batch: Batch, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if batch.num_logits > 1:
            logits += noise.uniform(-0.1, 0.1, logits.shape).astype(np.float32)
        return logits

    num_accepted = 0
    for seed in range(60):
        benches = []
        for speculates in (True, False):
            bench = Recorder(
                speculates=speculates,
                verify_margin=0.2,
                vocab_size=6,
                spread=3.0,
                seed=seed,
                corrupt=disturb,
            )
            bench.add("a", (1, 2, 3, 4, 5) * 3, **(PARAMS[name] | {"temperature": 0.0}))
            bench.run()
            benches.append(bench)
        on, off = benches
        assert on.result() == off.result()
        assert on.core.speculator is not None
        num_accepted += on.core.speculator.num_accepted_tokens
    assert num_accepted > 0


def test_a_crowd_gives_the_indexes_back() -> None:
    """They take more memory than the texts, and a text that is alone again is indexed anew."""
    bench = copying()
    bench.add("a")
    while not bench.num_verified:
        bench.step()
    (sequence,) = bench.core.scheduler.rows
    assert sequence.drafter is not None
    for name in "bc":
        bench.add(name, (30, 31, 32), max_tokens=3)
    while len(bench.core.scheduler.rows) < 3:
        bench.step()
    bench.step()
    assert sequence.drafter is None
    bench.run()
    assert bench.ids() == COPY


def test_logits_that_are_not_finite_end_the_sequence() -> None:
    """As they do when it decodes."""

    def break_it(batch: Batch, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if batch.num_logits > 1:
            logits[0, 5] = np.nan
        return logits

    bench = copying(corrupt=break_it)
    bench.add("a")
    bench.run()
    assert isinstance(bench.outputs["a"][-1].error, StepFailed)
    assert bench.core.scheduler.num_running == 0


def test_not_finite_behind_good_positions_costs_those_nothing() -> None:
    """What was good is handed out, and a decode says whether the rest is lost."""

    def break_it(batch: Batch, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if batch.num_logits > 1:
            logits[2:] = np.nan
        return logits

    bench = copying(corrupt=break_it)
    bench.add("a")
    bench.run()
    assert bench.result() == (COPY, "stop", EOS)


def test_a_failed_call_fails_its_row_only() -> None:
    """The other row's draft is still verified."""
    prompts = (1, 2, 3, 4, 5, 6, 1, 2), (9, 8, 7, 6, 5, 4, 9, 8)
    scripts = {prompts[0]: [3, 4, 5, EOS], prompts[1]: [7, 6, 5, 4, 9, 8, 7, 20, 21, EOS]}

    def fail(batch: Batch, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if batch.num_logits > 1 and batch.slots[0] == 0 and batch.token_ids[0, 0] == 3:
            raise RuntimeError("no")
        return logits

    bench = Recorder(scripts=scripts, corrupt=fail)
    bench.add("a", prompts[0])
    bench.add("b", prompts[1])
    bench.run()
    assert isinstance(bench.outputs["a"][-1].error, StepFailed)
    assert bench.ids("b") == scripts[prompts[1]]


def test_a_sequence_that_began_in_a_crowd_speculates_when_alone() -> None:
    """Its text is indexed when the others have gone."""
    bench = copying()
    for name in "abcd":
        bench.add(name, max_tokens=4 if name != "a" else 30)
    bench.run()
    assert bench.ids("a") == COPY
    assert bench.num_verified >= 1

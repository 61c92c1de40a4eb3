"""A piece of a prompt beside a decode, in one call: same texts, fewer calls, failures apart."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from provider_core.engine.core import MAX_CONSECUTIVE_FAILURES
from provider_core.errors import EngineDead, StepFailed
from provider_core.interfaces import Batch
from provider_core.types import TokenLogprobs
from tests.unit.engine.core_bench import Bench

LONG = tuple(range(1, 31))  # two chunks of the bench's 16 tokens


def _calls(bench: Bench) -> list[list[str]]:
    """The phases of each call from now on, filled while the bench steps."""
    calls: list[list[str]] = []
    numbers: list[int] = []

    def note(batch: Batch) -> None:
        if numbers[-1:] != [bench.runner.num_calls]:
            numbers.append(bench.runner.num_calls)
            calls.append([])
        calls[-1].append(batch.phase)

    bench.runner._on_execute = note
    return calls


def test_a_prompt_is_computed_in_the_call_that_decodes() -> None:
    """Each chunk, and none without a decode."""
    bench = Bench(mixes_phases=True)
    bench.add("a", max_tokens=9)
    bench.step()
    calls = _calls(bench)
    bench.add("b", *LONG)
    bench.step(3)
    assert calls == [["prefill", "decode"], ["prefill", "decode"], ["decode"]]
    assert (len(bench.ids("a")), len(bench.ids("b"))) == (4, 2)


def test_one_prompt_a_call() -> None:
    """Who comes next waits for the next step, however short both are."""
    bench = Bench(mixes_phases=True)
    bench.add("a", max_tokens=9)
    bench.step()
    bench.add("b")
    bench.add("c")
    bench.step()
    assert [len(bench.ids(name)) for name in "abc"] == [2, 1, 0]
    bench.step()
    assert [len(bench.ids(name)) for name in "abc"] == [3, 2, 1]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 1.0, "seed": 5},
        {"temperature": 1.0, "seed": 5, "top_p": 0.8, "repetition_penalty": 1.3},
    ],
)
def test_the_text_is_that_of_calls_apart(params: dict[str, Any]) -> None:
    """Whatever is drawn, for rows and prompts that come and go at different times."""
    texts = []
    for mixes in (False, True):
        bench = Bench(mixes_phases=mixes)
        for i, name in enumerate("abcdefgh"):
            bench.add(name, *LONG[i : i + 4 * i + 1], max_tokens=3 + 5 * i % 7, **params)
            bench.step(i % 3)
        bench.run()
        texts.append([bench.ids(name) for name in "abcdefgh"])
    assert texts[0] == texts[1]


def test_a_row_may_end_in_the_call_that_completes_a_prompt() -> None:
    """The prompt closes up, and the other row stays where it is."""
    bench = Bench(mixes_phases=True, reply=[9, 8, 7, 6, 5])
    bench.add("a", max_tokens=2)
    bench.add("b")
    bench.step()
    bench.add("c")
    bench.step()
    assert [each.slot for each in bench.core.scheduler.rows] == [0, 1]
    bench.run()
    assert [bench.ids(name) for name in "abc"] == [[9, 8], [9, 8, 7, 6, 5], [9, 8, 7, 6, 5]]


def test_a_prompt_that_ends_with_its_first_token_never_becomes_a_row() -> None:
    """Its slot is free again."""
    bench = Bench(mixes_phases=True)
    bench.add("a", max_tokens=9)
    bench.step()
    bench.add("b", max_tokens=1)
    bench.step()
    assert bench.last("b").finish_reason == "length"
    assert bench.core.scheduler.num_running == 1


def test_a_prompt_whose_logits_are_wanted_has_a_call_of_its_own() -> None:
    """So has a prompt of one token; both in the step that decodes."""
    wanted: dict[tuple[int, ...], dict[str, Any]] = {(1, 2, 3): {"prompt_logprobs": 0}, (1,): {}}
    for prompt, params in wanted.items():
        bench = Bench(mixes_phases=True)
        bench.add("a", max_tokens=9)
        bench.step()
        calls = _calls(bench)
        bench.add("b", *prompt, **params)
        bench.step()
        assert calls == [["decode"], ["prefill"]]
        assert len(bench.ids("b")) == 1


def test_a_long_prompt_and_shorter_ones_take_turns() -> None:
    """One call has room for one prompt, so the first in line has every other step at least."""
    bench = Bench(mixes_phases=True, max_num_seqs=8, max_model_len=128)
    bench.add("row", max_tokens=50)
    bench.step()
    bench.add("long", *[1 + i % 9 for i in range(60)], max_tokens=1)
    for i in range(4):
        bench.add(f"short{i}", max_tokens=50)
    order = []
    for _ in range(12):
        bench.step()
        order += [name for name, made in bench.outputs.items() if made and name not in order]
    assert order == ["row", "short0", "long", "short1", "short2", "short3"]  # as they began


def test_a_failed_call_is_run_apart() -> None:
    """Nobody loses anything by a call that fails only when mixed."""
    texts = []
    for failures in ({}, {1: StepFailed("lost"), 4: ValueError("broken")}):
        bench = Bench(mixes_phases=True, failures=failures)
        bench.add("a", temperature=1.0, seed=1, frequency_penalty=0.5)
        bench.step()
        bench.add("b", temperature=1.0, seed=2, frequency_penalty=0.5)
        bench.step()
        bench.add("c")
        bench.run()
        texts.append([bench.ids(name) for name in "abc"])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_logits_that_are_not_finite_hurt_only_their_own(phase: str) -> None:
    """The prompt, or the rows."""

    def corrupt(batch: Batch, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if batch.phase == phase and bench.runner.num_calls == 2:
            logits[:] = np.nan
        return logits

    bench = Bench(mixes_phases=True, corrupt=corrupt)
    bench.add("a")
    bench.step()
    bench.add("b")
    bench.run()
    ends = {name: bench.last(name).finish_reason for name in "ab"}
    hurt = "b" if phase == "prefill" else "a"
    assert ends == {"a": "length", "b": "length"} | {hurt: "error"}


def test_a_runner_that_fails_for_good_is_dead() -> None:
    """Its calls apart are counted like any other."""
    failures = {i: StepFailed("lost") for i in range(1, 99)}
    bench = Bench(mixes_phases=True, failures=failures, max_num_seqs=8)
    for i in range(MAX_CONSECUTIVE_FAILURES + 1):
        bench.add(str(i))
    with pytest.raises(EngineDead):
        bench.run()


def test_rows_decode_when_a_cached_prompt_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt is computed in a later step."""
    bench = Bench(mixes_phases=True, num_cache_blocks=8, cache_block_size=4)
    bench.add("first", *LONG[:12], max_tokens=1)
    bench.run()
    bench.add("row", 7, 7, 7, max_tokens=9)
    bench.step()

    def refuse(slot: int, block_ids: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(bench.runner, "load_blocks", refuse)
    bench.add("again", *LONG[:12])
    bench.step()
    assert (len(bench.ids("row")), bench.ids("again")) == (2, [])
    bench.run()
    assert bench.ids("again")[0] == bench.ids("first")[0]


def test_logprobs_of_prompt_and_rows_stay_apart() -> None:
    """Both asked for theirs."""
    bench = Bench(mixes_phases=True)
    bench.add("a", logprobs=0)
    bench.step()
    bench.add("b", logprobs=2)
    bench.step()
    for name, num_top in (("a", 0), ("b", 2)):
        [entry] = bench.outputs[name][-1].logprobs
        assert isinstance(entry, TokenLogprobs)
        assert (entry.token_id, len(entry.top)) == (bench.ids(name)[-1], num_top)


@pytest.mark.parametrize("max_tokens", [1, 5])
def test_what_a_cache_keeps_of_a_mixed_prompt_is_the_prompt(max_tokens: int) -> None:
    """Also if it closed up, because a row ended in its call, or ended there itself."""
    bench = Bench(mixes_phases=True, num_cache_blocks=8, cache_block_size=4)
    bench.add("ends", 7, 7, 7, max_tokens=2)
    bench.add("row", 8, 8, 8, max_tokens=20)
    bench.step()
    bench.add("first", *LONG[:12], max_tokens=max_tokens)
    bench.step()
    assert bench.last("ends").finish_reason == "length"
    bench.run()
    bench.add("again", *LONG[:12], max_tokens=5)
    bench.run()
    alone = Bench()
    alone.add("alone", *LONG[:12], max_tokens=5)
    alone.run()
    assert bench.core.num_cached_prompt_tokens == 8
    assert bench.ids("again") == alone.ids("alone")

"""Prompts that begin alike, where something goes wrong."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from structlog.testing import capture_logs

from provider_core.engine.prefix_reuse import MAX_FAILURES
from provider_core.errors import EngineDead, StepFailed
from provider_core.interfaces import Batch
from provider_core.testing import ScriptedRunner
from provider_core.types import EngineOutput
from tests.unit.engine.prefix_bench import Bench, alone, make_runner


@pytest.mark.parametrize("leaves", ["aborts", "fails", "is not finite"])
def test_a_prompt_that_was_not_completed_stores_nothing(leaves: str) -> None:
    """Not even the part that was computed."""

    def corrupt(batch: Batch, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return logits * np.float32(np.nan) if leaves == "is not finite" else logits

    failures = {1: StepFailed("lost")} if leaves == "fails" else None
    bench = Bench(make_runner(failures=failures, corrupt=corrupt), chunk=16)
    bench.add("a", range(32))
    bench.step()
    if leaves == "aborts":
        bench.core.abort("a")
    bench.finish()
    cache = bench.core.scheduler.prefix_cache
    assert cache is not None
    assert len(cache) == 0


class FailingStore(ScriptedRunner):
    """Stores blocks, where it does not fail: calls named in `failing` do."""

    failing: str = ""
    num_failed: int = 0

    def save_blocks(self, slot: int, first_token: int, block_ids: Sequence[int]) -> None:
        """Store them, or fail."""
        self._fail_if("save")
        super().save_blocks(slot, first_token, block_ids)

    def load_blocks(self, slot: int, block_ids: Sequence[int]) -> None:
        """Load them, or fail half way."""
        super().load_blocks(slot, block_ids[: len(block_ids) // 2])
        self._fail_if("load")
        super().load_blocks(slot, block_ids)

    def _fail_if(self, call: str) -> None:
        if self.failing == call:
            self.num_failed += 1
            raise OSError("no memory")


def _failing_bench(**options: Any) -> tuple[FailingStore, Bench]:
    runner = FailingStore(max_num_seqs=4, max_model_len=256, vocab_size=64, **options)
    return runner, Bench(runner)


def test_a_store_that_fails_costs_no_sequence() -> None:
    """The text goes on, and nothing counts as stored."""
    runner, bench = _failing_bench(num_cache_blocks=8)
    runner.failing = "save"
    for name in "ab":
        assert bench.run(name, range(40))[-1].finish_reason == "length"
    assert [bench.num_cached(name) for name in "ab"] == [0, 0]
    assert bench.recorders["b"].token_ids == alone(range(40))


def test_a_load_that_fails_costs_no_sequence() -> None:
    """The prompt is computed whole, announced and counted once, and stored anew."""
    runner, bench = _failing_bench(num_cache_blocks=8)
    bench.run("a", range(40))
    runner.failing = "load"
    outputs = bench.run("b", range(40))
    assert bench.recorders["b"].token_ids == alone(range(40))
    assert sum(output.started_s is not None for output in outputs) == 1
    assert bench.num_cached("b") == 0
    assert bench.core.num_prompt_tokens == bench.core.num_settled_prompt_tokens == 80
    runner.failing = ""
    bench.run("c", range(40))
    assert bench.num_cached("c") == 32
    assert bench.core.scheduler.num_running == 0


@pytest.mark.parametrize("call", ["save", "load"])
def test_a_store_that_always_fails_is_left_alone(call: str) -> None:
    """After a few failures, which are logged once; prompts come through all the while."""
    runner, bench = _failing_bench(num_cache_blocks=8)
    runner.failing = call
    with capture_logs() as logs:
        for i in range(4 * MAX_FAILURES):
            assert bench.run(str(i), range(40))[-1].finish_reason == "length"
    assert runner.num_failed == MAX_FAILURES
    assert [(line["event"], line["call"]) for line in logs] == [("cache.disabled", call)]


def test_a_store_that_fails_now_and_then_is_used() -> None:
    """Only failures in a row count."""
    runner, bench = _failing_bench(num_cache_blocks=8)
    for i in range(4 * MAX_FAILURES):
        runner.failing = "load" if i % 2 else ""
        bench.run(f"a{i}", range(40))
    bench.run("last", range(40))
    assert runner.num_failed > MAX_FAILURES
    runner.failing = ""
    bench.run("b", range(40))
    assert bench.num_cached("b") == 32


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_what_a_pass_of_nan_computed_is_not_stored(max_tokens: int) -> None:
    """Also where only the prompt was wanted: the sequence fails."""
    bench = Bench(make_runner(corrupt=lambda batch, logits: logits * np.float32(np.nan)))
    output = bench.run("a", range(20), max_tokens=max_tokens)[-1]
    cache = bench.core.scheduler.prefix_cache
    assert isinstance(output.error, StepFailed)
    assert cache is not None
    assert len(cache) == 0


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("num_beside", [0, 1])
def test_blocks_that_may_have_led_to_nan_are_forgotten(phase: str, num_beside: int) -> None:
    """With all that was built on them; others stay."""
    is_corrupt = False

    def corrupt(batch: Batch, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if is_corrupt and batch.phase == phase:
            logits[-1, 3] = np.nan
        return logits

    bench = Bench(make_runner(corrupt=corrupt))
    shared = list(range(12))
    bench.run("tail", [*shared, *range(40, 48)])
    bench.run("other", range(60, 40, -1))
    for i in range(num_beside):
        bench.add(f"beside-{i}", [63, 62, 61], max_tokens=20)
    bench.step()
    bench.add("bad", [*shared, 1, 2, 3])
    if phase == "decode":
        bench.step()
    is_corrupt = True
    bench.step()
    is_corrupt = False
    bench.finish()
    assert isinstance(bench.recorders["bad"].outputs[-1].error, StepFailed)
    for name, prompt in {"tail": [*shared, *range(40, 48)], "other": range(60, 40, -1)}.items():
        bench.run(f"{name} again", prompt)
    assert bench.num_cached("tail again") == 0
    assert bench.num_cached("other again") == 16


def test_who_ends_before_the_first_token_is_told_what_was_cached() -> None:
    """With the last output; who waits yet has used nothing."""
    bench = Bench(chunk=16)
    bench.run("a", range(40))
    for name in ("b", "c"):
        bench.add(name, [*range(40), *range(60, 5, -1)])
    bench.step()
    for name in ("b", "c"):
        bench.core.abort(name)
    bench.deliver()
    assert bench.recorders["b"].outputs[-1] == EngineOutput((), "abort", num_cached_tokens=40)
    assert bench.recorders["c"].outputs[-1] == EngineOutput((), "abort")


@pytest.mark.parametrize("method", ["save_blocks", "load_blocks"])
def test_a_device_that_is_gone_says_so_here_too(method: str) -> None:
    """The engine is dead at once."""

    def fail(*arguments: object) -> None:
        raise EngineDead("device lost")

    runner = make_runner()
    bench = Bench(runner)
    if method == "load_blocks":
        bench.run("a", range(20))
    setattr(runner, method, fail)
    with pytest.raises(EngineDead, match="device lost"):
        bench.run("b", range(20))

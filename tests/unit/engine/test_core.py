"""One step at a time: ends, failures, deadlines, aborts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from provider_core.engine.core import MAX_CONSECUTIVE_FAILURES
from provider_core.errors import BackendError, EngineDead, StepFailed
from provider_core.interfaces import Batch
from provider_core.testing import ScriptedRunner
from provider_core.types import EngineOutput
from tests.unit.engine.core_bench import EOS, Bench


def test_a_script_comes_out_as_written() -> None:
    """One id per step, the first with the prefill."""
    bench = Bench(scripts={(1, 2, 3): [9, 8, 7, 6, 5]})
    bench.add("a")
    bench.step()
    assert bench.ids("a") == [9]
    bench.run()
    assert bench.ids("a") == [9, 8, 7, 6, 5]
    assert bench.last("a") == EngineOutput((5,), "length")


def test_eos_ends_a_sequence_and_is_in_its_ids() -> None:
    """With the id that did it."""
    bench = Bench(scripts={(1, 2, 3): [9, EOS, 7]})
    bench.add("a")
    bench.run()
    assert bench.last("a") == EngineOutput((EOS,), "stop", EOS)


def test_ignored_eos_is_an_id_like_others() -> None:
    """The sequence goes on past it."""
    bench = Bench(scripts={(1, 2, 3): [9, EOS, 7, 6, 5]})
    bench.add("a", ignore_eos=True)
    bench.run()
    assert bench.ids("a") == [9, EOS, 7, 6, 5]


def test_stop_tokens_end_even_when_eos_is_ignored() -> None:
    """They are the request's own."""
    bench = Bench(scripts={(1, 2, 3): [9, EOS, 7, 6]})
    bench.add("a", ignore_eos=True, stop_token_ids=frozenset({7}))
    bench.run()
    assert (bench.ids("a"), bench.last("a").stop_token_id) == ([9, EOS, 7], 7)


def test_min_tokens_puts_eos_off() -> None:
    """Two ids that are not eos, although the script wants it first, then eos may come."""
    bench = Bench(reply=[EOS] * 5)
    bench.add("a", min_tokens=2)
    bench.run()
    assert EOS not in bench.ids("a")[:2]
    assert bench.ids("a")[2:] == [EOS]


def test_the_end_of_the_slot_is_length() -> None:
    """Prompt and text never exceed the model's length, whatever max_tokens says."""
    bench = Bench()
    bench.add("a", *range(1, 61), max_tokens=1000, ignore_eos=True)
    bench.run()
    assert (len(bench.ids("a")), bench.last("a").finish_reason) == (4, "length")


def test_the_first_token_comes_with_the_prompts_logprobs() -> None:
    """One per prompt id, over several chunks, the first without a value; later outputs none."""
    bench = Bench()
    prompt = tuple(range(5, 45))
    bench.add("whole", *prompt, prompt_logprobs=2, logprobs=1)
    bench.run()
    _, first, *others = bench.outputs["whole"]
    assert [entry.token_id for entry in first.prompt_logprobs] == list(prompt)
    assert first.prompt_logprobs[0].logprob is None
    assert all(entry.logprob is not None for entry in first.prompt_logprobs[1:])
    assert all(len(entry.top) == 2 for entry in first.prompt_logprobs[1:])
    assert len(first.logprobs) == 1
    assert all(output.prompt_logprobs == () for output in others)
    # What follows a prefix has the logprob that it gets as a generated token.
    bench.add("prefix", *prompt[:30], max_tokens=1, logprobs=0, logit_bias=((prompt[30], 100.0),))
    bench.run()
    expected = bench.last("prefix").logprobs[0].logprob
    assert first.prompt_logprobs[30].logprob == pytest.approx(expected)


def test_no_tokens_wanted_computes_the_prompt_and_draws_nothing() -> None:
    """However many chunks it has, beside others; the slot is free at once."""
    bench = Bench(scripts={(1, 2, 3): [9, 8]})
    bench.add("neighbour", max_tokens=2)
    bench.add("scored", *range(1, 21), max_tokens=0, prompt_logprobs=1)
    bench.run()
    [_, output] = bench.outputs["scored"]
    assert (output.token_ids, output.finish_reason) == ((), "length")
    assert [entry.token_id for entry in output.prompt_logprobs] == list(range(1, 21))
    assert bench.ids("neighbour") == [9, 8]
    assert bench.core.scheduler.num_running == 0
    assert bench.core.num_generated_tokens == 2


def test_a_failed_decode_hurts_only_its_rows() -> None:
    """Those that wait come through, and the engine goes on."""
    bench = Bench(max_num_seqs=2, failures={2: StepFailed("out of memory")})
    for name in "abc":
        bench.add(name)
    bench.run()
    assert [bench.last(name).finish_reason for name in "abc"] == ["error", "error", "length"]
    assert isinstance(bench.last("a").error, StepFailed)
    assert bench.core.scheduler.num_running == 0


def test_a_failed_prefill_hurts_only_its_sequence() -> None:
    """Its neighbours decode on, in their slots."""
    alone = Bench()
    alone.add("a")
    alone.run()
    bench = Bench(failures={2: ValueError("secret path /model")})
    bench.add("a")
    bench.step()
    bench.add("b", 4, 5)
    bench.run()
    assert bench.ids("a") == alone.ids("a")
    error = bench.last("b").error
    assert isinstance(error, BackendError)
    assert "secret" not in str(error)
    assert isinstance(error.__cause__, ValueError)


def test_a_failed_move_hurts_only_who_was_moved() -> None:
    """The holes close all the same, and the others make what they would have made."""

    class NoMoves(ScriptedRunner):
        def move_slot(self, source: int, target: int, num_tokens: int) -> None:
            """Fail."""
            raise RuntimeError("no")

    alone = Bench()
    alone.add("b", 4, 5, max_tokens=9)
    alone.run()
    bench = Bench()
    bench.runner = bench.core.runner = NoMoves(max_num_seqs=4, max_model_len=64)
    bench.add("a", max_tokens=2)
    bench.add("b", 4, 5, max_tokens=9)
    bench.add("c", 6, max_tokens=9)
    bench.run()
    # a ends, c cannot move into slot 0; then b must move there, and cannot either.
    assert [bench.last(name).finish_reason for name in "abc"] == ["length", "error", "error"]
    assert bench.ids("b") == alone.ids("b")[: len(bench.ids("b"))]
    assert bench.core.scheduler.num_running == 0


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda batch, logits: logits[:, :-1],
        lambda batch, logits: logits.astype(np.float64),
        lambda batch, logits: logits[:0],
        lambda batch, logits: None,
    ],
    ids=["narrow", "double", "empty", "none"],
)
def test_logits_of_a_wrong_shape_are_a_failed_step(
    corrupt: Callable[[Batch, npt.NDArray[np.float32]], Any],
) -> None:
    """Not an exception in the sampler."""
    bench = Bench(corrupt=corrupt)
    bench.add("a")
    bench.run()
    assert isinstance(bench.last("a").error, StepFailed)


def test_a_row_of_nan_hurts_only_its_sequence() -> None:
    """The others decode on, and the failed one's slot is free."""
    alone = Bench()
    alone.add("b", 4, 5)
    alone.run()

    def corrupt(batch: Batch, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if batch.phase == "decode" and len(batch.slots) == 3:
            logits[0, 17] = np.nan
        return logits

    bench = Bench(corrupt=corrupt)
    bench.add("a")
    bench.add("b", 4, 5)
    bench.add("c", 6)
    bench.run()
    assert isinstance(bench.last("a").error, StepFailed)
    assert bench.ids("b") == alone.ids("b")
    assert bench.last("c").finish_reason == "length"


def test_nan_inside_a_prompt_is_a_failed_step_when_its_logprobs_are_wanted() -> None:
    """Not a logprob that no JSON can hold."""

    def corrupt(batch: Batch, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        logits[0, 5] = np.nan
        return logits

    bench = Bench(corrupt=corrupt)
    bench.add("a", prompt_logprobs=2)
    bench.run()
    assert isinstance(bench.last("a").error, StepFailed)
    assert bench.last("a").prompt_logprobs == ()


def test_failures_in_a_row_kill_the_engine() -> None:
    """One more than is bearable, and everything ends with the error."""
    bench = Bench(failures={i: RuntimeError("broken") for i in range(50)})
    for i in range(MAX_CONSECUTIVE_FAILURES + 2):
        bench.add(str(i))
    with pytest.raises(EngineDead) as caught:
        bench.run()
    bench.core.fail_all(caught.value)
    bench.deliver()
    assert all(bench.last(name).finish_reason == "error" for name in bench.outputs)
    assert isinstance(bench.last("6").error, EngineDead)


def test_a_success_between_failures_forgives_them() -> None:
    """Only failures in a row count."""
    bench = Bench(failures={i: RuntimeError("flaky") for i in range(0, 100, 2)})
    for i in range(30):
        bench.add(str(i), 4, max_tokens=1)
    bench.run()
    reasons = [bench.last(name).finish_reason for name in bench.outputs]
    assert reasons == ["error", "length"] * 15


def test_rows_of_nan_in_a_row_kill_the_engine_too() -> None:
    """A device that computes nonsense is as dead as one that raises."""
    bench = Bench(corrupt=lambda batch, logits: logits * np.float32(np.nan))
    for i in range(MAX_CONSECUTIVE_FAILURES):
        bench.add(str(i))
    with pytest.raises(EngineDead):
        bench.run()


def test_a_runner_that_is_gone_says_so_at_once() -> None:
    """EngineDead is not counted to five."""
    bench = Bench(failures={0: EngineDead("device lost")})
    bench.add("a")
    with pytest.raises(EngineDead, match="device lost"):
        bench.step()


@pytest.mark.parametrize("num_steps", [0, 1, 2, 4, 6])
def test_an_abort_frees_the_slot_whatever_it_was_doing(num_steps: int) -> None:
    """Waiting, in prefill, decoding: one last output, and the neighbour's text is its own."""
    alone = Bench()
    alone.add("b", 4, 5, max_tokens=20)
    alone.run()
    bench = Bench()
    bench.add("a", *range(1, 40), max_tokens=20)
    bench.add("b", 4, 5, max_tokens=20)
    bench.step(num_steps)
    bench.core.abort("a")
    bench.core.abort("a")
    bench.core.abort("nobody")
    bench.deliver()
    assert bench.last("a") == EngineOutput((), "abort")
    bench.run()
    assert bench.ids("b") == alone.ids("b")
    assert bench.core.scheduler.num_running == 0
    assert bench.core.num_settled_prompt_tokens == 39 + 2


def test_ids_outside_the_vocabulary_in_parameters_do_nothing() -> None:
    """A bias or a stop token that the model does not have is no reason to fail."""
    alone = Bench()
    alone.add("a")
    alone.run()
    bench = Bench()
    bench.add(
        "a",
        logit_bias=((256, 100.0), (-1, 100.0)),
        stop_token_ids=frozenset({-1, 999}),
        min_tokens=3,
    )
    bench.run()
    assert bench.ids("a") == alone.ids("a")


def test_plain_outputs_are_shared() -> None:
    """After the first output, two sequences that make the same id get the same frozen value."""
    bench = Bench(reply=[9] * 5)
    bench.add("a")
    bench.add("b", 4)
    bench.run()
    assert bench.outputs["a"][1] is bench.outputs["b"][1]


def test_a_sequence_says_when_it_is_begun() -> None:
    """Once, by an output without ids that comes before all others."""
    bench = Bench(max_num_seqs=1)
    bench.add("a", max_tokens=2)
    bench.add("b", max_tokens=1)
    bench.run()
    for name in "ab":
        first, *others = bench.outputs[name]
        assert (first.token_ids, first.started_s) == ((), bench.clock.monotonic())
        assert all(output.started_s is None for output in others)

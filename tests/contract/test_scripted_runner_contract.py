"""Our own runner fulfils the contract, and runners with mistakes do not.

A contract that a broken runner passes proves nothing, so each mistake that the contract is there
for is made once here.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from provider_core.interfaces import Batch, ModelRunner
from provider_core.testing import ContractViolation, RunnerContract, ScriptedRunner


class TestScriptedRunner(RunnerContract):
    """The scripted runner is a real runner."""

    def make_runner(self) -> ModelRunner:
        """Few slots, so that sequences wait."""
        return ScriptedRunner(max_num_seqs=3, max_model_len=128)


class TestMixingRunner(RunnerContract):
    """So is one that takes a prompt beside a decode."""

    def make_runner(self) -> ModelRunner:
        """Few slots, so that sequences wait."""
        return ScriptedRunner(max_num_seqs=3, max_model_len=128, mixes_phases=True)


class _Careless(ScriptedRunner):
    """A runner that makes one mistake."""

    def __init__(self) -> None:
        super().__init__(max_num_seqs=3, max_model_len=128, mixes_phases=True)


class _ForgetsMoves(_Careless):
    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Leave the target as it was."""


class _MovesTooLittle(_Careless):
    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Lose the last token."""
        super().move_slot(source, target, num_tokens - 1)


class _ConfusesRows(_Careless):
    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return the rows backwards."""
        return super().execute_model(batch)[::-1]


class _DependsOnNeighbours(_Careless):
    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Add the batch's first row to all others."""
        logits = super().execute_model(batch)
        logits[1:] += logits[0] if len(logits) else 0
        return logits


class _IgnoresPositions(_Careless):
    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Start every prefill chunk at 0."""
        if batch.phase == "prefill":
            starts = np.zeros_like(batch.num_computed_tokens)
            batch = Batch("prefill", batch.slots, batch.token_ids, starts, batch.num_logits)
        return super().execute_model(batch)


class _GivesAllLogits(_Careless):
    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return every position's logits, asked for or not."""
        size = batch.token_ids.shape[1]
        return super().execute_model(
            Batch(batch.phase, batch.slots, batch.token_ids, batch.num_computed_tokens, size)
        )


class _GivesDoubles(_Careless):
    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return float64."""
        logits: npt.NDArray[np.float32] = super().execute_model(batch).astype(np.float64)
        return logits


class _PrefersSlots(_Careless):
    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Let the slot's number into the logits."""
        logits = super().execute_model(batch)
        if batch.num_logits:
            logits[:, batch.slots[-1] :: 7] += 5
        return logits


class _PutsRowsFirst(_Careless):
    def execute_mixed(self, prefill: Batch, decode: Batch) -> npt.NDArray[np.float32]:
        """Return the prompt's logits last."""
        return np.roll(super().execute_mixed(prefill, decode), -prefill.num_logits, axis=0)


class _StoresNoRows(_Careless):
    def execute_mixed(self, prefill: Batch, decode: Batch) -> npt.NDArray[np.float32]:
        """Forget what the rows' new tokens add to their slots."""
        stored = self._hashes.copy()
        logits = super().execute_mixed(prefill, decode)
        self._hashes[decode.slots] = stored[decode.slots]
        return logits


@pytest.mark.parametrize(
    ("make_runner", "test"),
    [
        (_ForgetsMoves, "test_move_slot_moves_the_text"),
        (_MovesTooLittle, "test_move_slot_moves_the_text"),
        (_ForgetsMoves, "test_staggered_admission_equals_alone"),
        (_ConfusesRows, "test_batched_equals_alone"),
        (_ConfusesRows, "test_logits_of_all_positions_agree_with_those_of_the_last"),
        (_DependsOnNeighbours, "test_batched_equals_alone"),
        (_DependsOnNeighbours, "test_seed_repeats"),
        (_IgnoresPositions, "test_chunked_prefill_equals_whole"),
        (_GivesAllLogits, "test_logits_have_the_promised_shape"),
        (_GivesDoubles, "test_logits_have_the_promised_shape"),
        (_PrefersSlots, "test_every_slot_is_alike"),
        (_PutsRowsFirst, "test_a_mixed_call_does_what_two_do"),
        (_StoresNoRows, "test_a_mixed_call_does_what_two_do"),
    ],
)
def test_a_careless_runner_violates_the_contract(
    make_runner: Callable[[], ModelRunner], test: str
) -> None:
    """The test meant for a mistake finds it, and says what it saw."""

    class Contract(RunnerContract):
        def make_runner(self) -> ModelRunner:
            return make_runner()

    with pytest.raises(ContractViolation):
        getattr(Contract(), test)()

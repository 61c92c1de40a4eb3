"""Our own runner fulfils the contract, and runners with mistakes do not.

A contract that a broken runner passes proves nothing, so each mistake that the contract is there
for is made once here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from provider_core.interfaces import Batch, ModelRunner
from provider_core.testing import (
    ContractViolation,
    FailingRunner,
    RunnerContract,
    ScriptedRunner,
)
from tests.contract.candidate_mistakes import CANDIDATE_MISTAKES


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


class _ClaimsNoSlots(_Careless):
    def __init__(self) -> None:
        super().__init__()
        self.info = replace(self.info, max_num_seqs=0)


class _ClaimsToLackSomething(_Careless):
    def __init__(self) -> None:
        super().__init__()
        self.info = replace(self.info, unsupported_params=frozenset({"seed"}))


class _GivesNothingFinite(_Careless):
    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Divide by zero somewhere."""
        return super().execute_model(batch) * np.float32("nan")


class _RemembersTheLongest(_Careless):
    """Attends to whatever a slot has ever held."""

    def __init__(self) -> None:
        super().__init__()
        self._longest = np.zeros(3, np.int64)

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Let the length of what was there into the logits."""
        logits = super().execute_model(batch)
        slots, ends = batch.slots, batch.num_computed_tokens + batch.token_ids.shape[1]
        np.maximum.at(self._longest, slots, ends)
        for row in np.flatnonzero(self._longest[slots] > ends):
            logits[row * batch.num_logits : (row + 1) * batch.num_logits, ends[row] :: 5] += 9
        return logits

    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Move that, too."""
        super().move_slot(source, target, num_tokens)
        self._longest[target] = self._longest[source]


class _SpoilsBlocks(_Careless):
    def __init__(self) -> None:
        super().__init__()
        runner = ScriptedRunner(num_cache_blocks=8, cache_block_size=4)
        self.info = replace(self.info, num_cache_blocks=8, cache_block_size=4)
        self._blocks = runner._blocks

    def load_blocks(self, slot: int, block_ids: Sequence[int]) -> None:
        """Put them a place too far."""
        super().load_blocks(slot, block_ids)
        self._hashes[slot, 2:] = self._hashes[slot, 1:-1].copy()


class _SavesOneBlock(_SpoilsBlocks):
    def save_blocks(self, slot: int, first_token: int, block_ids: Sequence[int]) -> None:
        """Keep the first of several."""
        super().save_blocks(slot, first_token, block_ids[:1])

    def load_blocks(self, slot: int, block_ids: Sequence[int]) -> None:
        """As it should."""
        ScriptedRunner.load_blocks(self, slot, block_ids)


class _HasFewBlocks(_SpoilsBlocks):
    def __init__(self) -> None:
        super().__init__()
        self.info = replace(self.info, num_cache_blocks=5)


def _only_claims_blocks() -> ModelRunner:
    """Say how many there are, and have no method that stores any."""
    return FailingRunner(_SpoilsBlocks())


class _SmearsTheLast(_Careless):
    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Give every position of a row the logits of its last."""
        logits = super().execute_model(batch)
        if batch.phase == "prefill" and batch.num_logits > 1:
            logits[:-1] = logits[-1]
        return logits


class _DeclaresNoMargin(_SmearsTheLast):
    def __init__(self) -> None:
        super().__init__()
        self.info = replace(self.info, verify_margin=None)


class _RoundsCoarsely(_Careless):
    """Whose kernels for several positions multiply in fewer bits, as it declares."""

    def __init__(self, margin: float | None) -> None:
        super().__init__()
        self.info = replace(self.info, verify_margin=margin)

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Be a little off."""
        logits = super().execute_model(batch)
        if batch.num_logits > 1:
            logits[:, ::2] += 0.1
        return logits


class _StumblesOverOneToken(_Careless):
    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Have another kernel for prompts of one token, which is wrong."""
        logits = super().execute_model(batch)
        if batch.phase == "prefill" and batch.token_ids.size == 1:
            logits[:] = 0
        return logits


class _LosesTheEnd(_Careless):
    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Have no room for a slot's last positions."""
        logits = super().execute_model(batch)
        self._hashes[:, -8:] = 0
        return logits


class _MovesAFewOnly(_Careless):
    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Move one block of a kernel."""
        super().move_slot(source, target, min(num_tokens, 32))


class _StaysPoisoned(_Careless):
    """Makes no number of one id, and then of anything."""

    _is_poisoned = False

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Let one bad row into all that come after it."""
        logits = super().execute_model(batch)
        if self._is_poisoned:
            logits[:] = np.nan
        self._is_poisoned |= bool((batch.token_ids == self.info.vocab_size - 1).any())
        return logits


class _CannotReadOneId(_Careless):
    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Have no vector for the last id."""
        logits = super().execute_model(batch)
        return logits * np.nan if (batch.token_ids == self.info.vocab_size - 1).any() else logits


class _WritesIntoTheBatch(_Careless):
    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Use an array of the scheduler's."""
        logits = super().execute_model(batch)
        if batch.phase == "decode":
            batch.num_computed_tokens[:] += 1
        return logits


class _ExpectsADecode(_Careless):
    """Counts on a sequence that has begun to go on."""

    def __init__(self) -> None:
        super().__init__()
        self._begun: set[int] = set()

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Give up where another begins in its place."""
        if batch.phase == "prefill" and batch.num_computed_tokens[0] == 0:
            slot = int(batch.slots[0])
            if slot in self._begun:
                raise RuntimeError("this slot has not been finished")
            self._begun.add(slot)
        return super().execute_model(batch)


class _ClosesOnce(_Careless):
    def close(self) -> None:
        """Free what is freed already."""
        if self.is_closed:
            raise RuntimeError("double free")
        super().close()


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


MISTAKES: list[tuple[Callable[[], ModelRunner], str, str]] = [
    (_ClaimsNoSlots, "test_info_is_possible", r"info\.max_num_seqs is 0"),
    (_ClaimsToLackSomething, "test_info_is_possible", "unsupported_params is for engines"),
    (_GivesAllLogits, "test_logits_have_the_promised_shape", r"num_logits=0 gave .* not float32"),
    (_GivesDoubles, "test_logits_have_the_promised_shape", "gave float64 logits"),
    (_GivesNothingFinite, "test_logits_have_the_promised_shape", "that are not finite"),
    (
        _ConfusesRows,
        "test_logits_of_all_positions_agree_with_those_of_the_last",
        "the difference of two logits changes by",
    ),
    (
        _SmearsTheLast,
        "test_logits_of_all_positions_agree_with_those_of_the_last",
        "one by one against all at once: at position [1-6] of 8",
    ),
    (
        _DeclaresNoMargin,
        "test_logits_of_all_positions_agree_with_those_of_the_last",
        "one by one against all at once: at position [0-5] of 7 .* margin is 0.5",
    ),
    (
        lambda: _RoundsCoarsely(0.02),
        "test_logits_of_all_positions_agree_with_those_of_the_last",
        "changes by 0.1, and the margin is 0.02",
    ),
    (
        _StumblesOverOneToken,
        "test_logits_of_all_positions_agree_with_those_of_the_last",
        "one by one against all at once: at position 0 of 8",
    ),
    (_StaysPoisoned, "test_every_id_is_an_input", "after prompts of all ids it is"),
    (_CannotReadOneId, "test_every_id_is_an_input", "of the ids from 128 to 255 gave .* not fin"),
    (_WritesIntoTheBatch, "test_a_batch_is_left_as_it_was", "a decode wrote into .* num_computed"),
    (_LosesTheEnd, "test_a_slot_holds_every_position", "the last positions of 128, in pieces"),
    (_IgnoresPositions, "test_chunked_prefill_equals_whole", "after chunks of 3 it is"),
    (_RemembersTheLongest, "test_a_reused_slot_forgets", "in a used slot it is"),
    (_RemembersTheLongest, "test_a_slot_goes_back", "with a wrong draft tried at each id"),
    (_PrefersSlots, "test_every_slot_is_alike", "the first id of one prompt by slot is"),
    (_ForgetsMoves, "test_move_slot_moves_the_text", "after the move it is"),
    (_MovesTooLittle, "test_move_slot_moves_the_text", "after the move it is"),
    (_MovesAFewOnly, "test_move_slot_moves_the_text", "after the move it is"),
    (_SavesOneBlock, "test_loaded_blocks_have_the_bits_that_were_saved", "filled from blocks"),
    (_HasFewBlocks, "test_loaded_blocks_have_the_bits_that_were_saved", "must give 6 cache blocks"),
    (
        _only_claims_blocks,
        "test_loaded_blocks_have_the_bits_that_were_saved",
        "is for a BlockStore",
    ),
    (_SpoilsBlocks, "test_loaded_blocks_have_the_bits_that_were_saved", "filled from blocks"),
    (_PutsRowsFirst, "test_a_mixed_call_does_what_two_do", "in one call it is"),
    (_StoresNoRows, "test_a_mixed_call_does_what_two_do", "in one call it is"),
    (
        _ExpectsADecode,
        "test_a_failed_step_hurts_only_its_batch",
        "sequence after ended with 'error'",
    ),
    (_ExpectsADecode, "test_abort_within_a_step", "aborted within its first step, it ended with"),
    (_ClosesOnce, "test_runner_close_is_idempotent", "the second close of a runner that never ran"),
    (_ConfusesRows, "test_batched_equals_alone", "the greedy text of prompt .* in a batch is"),
    (_DependsOnNeighbours, "test_batched_equals_alone", "and alone it is"),
    (_ForgetsMoves, "test_staggered_admission_equals_alone", "admitted while others ran, made"),
    (_DependsOnNeighbours, "test_seed_repeats", "the seeded text of prompt .* in a batch is"),
]
"""What a runner does wrong, the test that is there for it, and what that says."""


@pytest.mark.parametrize(("make_runner", "test", "says"), MISTAKES + CANDIDATE_MISTAKES)
def test_a_careless_runner_violates_the_contract(
    make_runner: Callable[[], ModelRunner], test: str, says: str
) -> None:
    """The test meant for a mistake finds it, and says what it saw."""

    class Contract(RunnerContract):
        def make_runner(self) -> ModelRunner:
            return make_runner()

    with pytest.raises(ContractViolation, match=says):
        getattr(Contract(), test)()


@pytest.mark.parametrize("margin", [0.2, None])
def test_rounding_within_what_is_declared_is_allowed(margin: float | None) -> None:
    """And where no margin is declared, no drafts are tried: other kernels may round otherwise."""

    class Contract(RunnerContract):
        def make_runner(self) -> ModelRunner:
            return _RoundsCoarsely(margin)

    Contract().test_logits_of_all_positions_agree_with_those_of_the_last()
    Contract().test_a_slot_holds_every_position()


def test_every_promise_of_a_runner_can_be_broken() -> None:
    """A test that nothing fails is none. What is asked of engines is broken in their own test."""
    own = {name for name in vars(RunnerContract) if name.startswith("test_")}

    assert own <= {test for _, test, _ in MISTAKES + CANDIDATE_MISTAKES}

"""Slots and rows that belong to no text: for runners that write keys and values in place.

Three things such a runner has to get right, on whichever device: decodes of few shapes have more
rows than there are texts; what these write must not be read; and NaN that one text left must not
come into another.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from provider_core.runners import Batch

_SMALL_BATCHES = (1, 2, 4)
_BATCH_STEP = 8


def round_rows(num_rows: int, max_num_seqs: int) -> int:
    """Rows of a decode that has at least `num_rows`: 1, 2, 4, then multiples of 8.

    So there are few shapes, and what was captured or bound for one is used again.
    """
    for size in _SMALL_BATCHES:
        if num_rows <= size:
            return min(size, max_num_seqs)
    return min(-(-num_rows // _BATCH_STEP) * _BATCH_STEP, max_num_seqs)


class SlotEnds:
    """How far slots are written, so that rows without a text can write where nobody reads.

    Args:
        num_slots: How many there are.
        max_model_len: Positions of each.
    """

    def __init__(self, num_slots: int, max_model_len: int) -> None:
        self._ends = np.zeros(num_slots, np.int32)  # behind the last position written
        self._last = max_model_len - 1

    def note(self, first_slot: int, ends: npt.NDArray[np.int32] | Sequence[int]) -> None:
        """Remember how far consecutive slots were written.

        Args:
            first_slot: Of the first end.
            ends: `[n]`, the position behind the last one written.
        """
        self._ends[first_slot : first_slot + len(ends)] = ends

    def free_positions(self, first: int, last: int) -> npt.NDArray[np.int32]:
        """A position of each slot from `first` up to before `last` that may be overwritten.

        That is the next one: whoever goes on in the slot writes it before anybody reads it. A slot
        that is full gives its last one, because nobody can go on in it.
        """
        return np.minimum(self._ends[first:last], self._last)


class FailedTexts:
    """Texts that came to NaN, kept from those that have their slots next.

    Where a mask hides the positions that are not, or no longer, of a slot's text, they still count
    with a weight of 0, and NaN comes through that. A kernel that reads no such positions needs none
    of this.

    Args:
        clear: Called with a slot and the number of its first positions that may hold NaN: writes
            zeros over them, and where `free_positions` let somebody write.
    """

    def __init__(self, clear: Callable[[int, int], None]) -> None:
        self._clear = clear
        self._unchecked: dict[int, int] = {}  # tokens by slot: written, and no logits since

    def begin(self, slot: int) -> None:
        """Make a slot ready for another text."""
        num_tokens = self._unchecked.pop(slot, 0)  # whoever had it left before there were logits
        if num_tokens:
            self._clear(slot, num_tokens)

    def note(self, batch: Batch, is_lost: npt.NDArray[np.bool_] | None) -> None:
        """Take what a batch came to, and clear the slots of texts that are lost.

        Args:
            batch: That was run.
            is_lost: As `find_lost` has it, `[n]`; `None` if the batch had no logits.
        """
        ends = batch.num_computed_tokens + batch.token_ids.shape[1]
        if is_lost is None:
            self._unchecked[int(batch.slots[0])] = int(ends[0])
            return
        if self._unchecked:
            for slot in batch.slots.tolist():
                self._unchecked.pop(slot, None)
        for row in np.flatnonzero(is_lost).tolist():
            self._clear(int(batch.slots[row]), int(ends[row]))

    def move(self, source: int, target: int) -> None:
        """Take a move of slots, which is made next."""
        self.begin(target)  # positions behind those moved may hold NaN of whoever had it
        if source in self._unchecked:
            self._unchecked[target] = self._unchecked[source]


def find_lost(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Which texts came to NaN, by the logits of their last positions.

    NaN or infinity in any key or value is NaN in all logits of all positions behind it. If but some
    are NaN or infinite, it is the weights of these ids: what is kept of the text is sound, and the
    text goes on if its request rules them out.

    Args:
        logits: `[n, vocab_size]`; of rows whose first is a number, no other is looked at.

    Returns:
        `[n]`.
    """
    is_lost: npt.NDArray[np.bool_] = np.isnan(logits[:, 0])
    for row in np.flatnonzero(is_lost).tolist():
        is_lost[row] = np.isnan(logits[row]).all()
    return is_lost

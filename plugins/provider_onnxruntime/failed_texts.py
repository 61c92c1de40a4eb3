"""Texts that came to NaN, kept from those that have their slots next.

Where a mask hides the positions that are not, or no longer, of a slot's text, they still count with
a weight of 0, and NaN comes through that. GroupQueryAttention reads no such positions.
"""

import numpy as np
import numpy.typing as npt

from provider_core import Batch
from provider_onnxruntime.kv_pool import KvPool


class FailedTexts:
    """Clears what they leave behind.

    NaN or infinity in any key or value is NaN in all logits of all positions behind it: the first
    logit of a text's last position tells, and only if that is NaN are the others looked at. If but
    some are NaN or infinite, it is the weights of these ids, and what is kept of the text is sound.

    Args:
        pool: The slots.
    """

    def __init__(self, pool: KvPool) -> None:
        self._pool = pool
        self._unchecked: dict[int, int] = {}  # tokens by slot: written, and no logits since

    def begin(self, slot: int) -> None:
        """Make a slot ready for another text."""
        num_tokens = self._unchecked.pop(slot, 0)  # whoever had it left before there were logits
        if num_tokens:
            self._pool.clear(slot, num_tokens)

    def note(self, batch: Batch, logits: npt.NDArray[np.float32]) -> None:
        """Take what a batch came to, and clear the slots where that is NaN."""
        ends = batch.num_computed_tokens + batch.token_ids.shape[1]
        if not batch.num_logits:
            self._unchecked[int(batch.slots[0])] = int(ends[0])
            return
        last = logits[batch.num_logits - 1 :: batch.num_logits]
        if self._unchecked:
            for slot in batch.slots.tolist():
                self._unchecked.pop(slot, None)
        for row in np.flatnonzero(np.isnan(last[:, 0])).tolist():
            if np.isnan(last[row]).all():
                self._pool.clear(int(batch.slots[row]), int(ends[row]))

    def move(self, source: int, target: int) -> None:
        """Take a move of slots, which is made next."""
        self.begin(target)  # positions behind those moved may hold NaN of whoever had it
        if source in self._unchecked:
            self._unchecked[target] = self._unchecked[source]

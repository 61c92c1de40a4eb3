"""Keys and values of all slots, written in place by the decoder.

Each half of a layer has one buffer `[slots, heads, positions, head_dim]`. A range of slots is a
contiguous part of it, bound as past and as present at once.

A mask hides positions that are not, or no longer, of a slot's text: they count with a weight of 0.
NaN would come through that, so buffers begin as zeros, and a slot whose text came to NaN is
cleared before another text has it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from provider_core.decoder_io import CacheTensor
from provider_tensorrt.device import Device, DeviceArray


class KvSlots:
    """The slots of one decoder.

    Args:
        device: Where they are.
        caches: The decoder's, in order.
        dtype: Of all of them, numpy's name.
        num_slots: How many.
        max_model_len: Positions of each.
    """

    def __init__(
        self,
        device: Device,
        caches: Sequence[CacheTensor],
        dtype: str,
        num_slots: int,
        max_model_len: int,
    ) -> None:
        self._device = device
        self._max_model_len = max_model_len
        self._ends = np.zeros(num_slots, np.int64)  # behind the last position written
        self._unchecked: set[int] = set()  # written, and no logits yet that would show NaN
        self._caches = caches
        self._buffers = [
            device.allocate((num_slots, cache.num_heads, max_model_len, cache.head_dim), dtype)
            for cache in caches
        ]

    def tensors(self, first: int, count: int) -> dict[str, DeviceArray]:
        """The caches of slots `first` to `first + count - 1`, by the decoder's names."""
        tensors = {}
        for cache, slot in zip(self._caches, self.buffers(first), strict=True):
            tensors[cache.past] = tensors[cache.present] = slot.part(0, (count, *slot.shape))
        return tensors

    def buffers(self, slot: int) -> list[DeviceArray]:
        """A slot's part of each buffer, `[heads, positions, head_dim]`."""
        return [
            buffer.part(slot * (buffer.num_bytes // buffer.shape[0]), buffer.shape[1:])
            for buffer in self._buffers
        ]

    def begin(self, slot: int) -> None:
        """Make a slot ready for another text."""
        if slot in self._unchecked:  # whoever had it left before there were logits
            self.clear(slot)

    def note_written(self, slots: npt.NDArray[np.integer], ends: npt.NDArray[np.integer]) -> None:
        """Remember how far slots were written; `free_positions` is behind that."""
        self._ends[slots] = ends

    def note_unchecked(self, slot: int) -> None:
        """Remember that a slot was written without logits."""
        self._unchecked.add(slot)

    def note_logits(self, slots: npt.NDArray[np.int32], is_lost: npt.NDArray[np.bool_]) -> None:
        """Take what the last logits of slots came to, and clear those that are lost.

        Args:
            slots: `[n]`.
            is_lost: As `find_lost` has it, `[n]`.
        """
        if self._unchecked:
            self._unchecked.difference_update(slots.tolist())
        for slot in slots[is_lost].tolist():
            self.clear(slot)

    def free_positions(self, first: int, last: int) -> npt.NDArray[np.int64]:
        """A position of each slot from `first` up to before `last` that may be overwritten.

        That is the next one: whoever goes on in the slot writes it before anybody reads it. A slot
        that is full gives its last one, because nobody can go on in it.
        """
        return np.minimum(self._ends[first:last], self._max_model_len - 1)

    def clear(self, slot: int) -> None:
        """Queue zeros over a slot."""
        for buffer in self.buffers(slot):
            self._device.clear(buffer)
        self._ends[slot] = 0
        self._unchecked.discard(slot)

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """Queue a copy of the first `num_tokens` positions of a slot into another."""
        self.begin(target)  # positions behind those copied may hold NaN of whoever had it
        for to_slot, from_slot in zip(self.buffers(target), self.buffers(source), strict=True):
            num_heads, num_positions, head_dim = from_slot.shape
            position_bytes = head_dim * from_slot.dtype.itemsize
            self._device.copy_rows(
                to_slot.pointer,
                from_slot.pointer,
                num_rows=num_heads,
                row_bytes=num_tokens * position_bytes,
                target_pitch=num_positions * position_bytes,
                source_pitch=num_positions * position_bytes,
            )
        self._ends[target] = num_tokens
        if source in self._unchecked:
            self._unchecked.add(target)


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

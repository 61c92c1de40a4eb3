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
        self._buffers = [
            (
                cache,
                device.allocate((num_slots, cache.num_heads, max_model_len, cache.head_dim), dtype),
            )
            for cache in caches
        ]

    def tensors(self, first: int, count: int) -> dict[str, DeviceArray]:
        """The caches of slots `first` to `first + count - 1`, by the decoder's names."""
        tensors = {}
        for cache, buffer in self._buffers:
            num_slots, *shape = buffer.shape
            offset = first * (buffer.num_bytes // num_slots)
            slots = buffer.part(offset, (count, *shape))
            tensors[cache.past] = tensors[cache.present] = slots
        return tensors

    def begin(self, slot: int) -> None:
        """Make a slot ready for a text from its start on."""
        if slot in self._unchecked:  # whoever had it left before there were logits
            self.clear(slot)

    def note_written(self, slots: npt.NDArray[np.int32], ends: npt.NDArray[np.int32]) -> None:
        """Remember how far slots were written; `free_positions` is behind that."""
        self._ends[slots] = ends

    def note_unchecked(self, slot: int) -> None:
        """Remember that a slot was written without logits."""
        self._unchecked.add(slot)

    def note_logits(self, slots: npt.NDArray[np.int32], logits: npt.NDArray[np.floating]) -> None:
        """Look at one of the last logits of each slot, `[n]`, and clear those that came to NaN.

        NaN or infinity in any key or value is NaN in all logits of all positions behind it.
        """
        if self._unchecked:
            self._unchecked.difference_update(slots.tolist())
        for slot in slots[~np.isfinite(logits)].tolist():
            self.clear(slot)

    def free_positions(self, first: int, last: int) -> npt.NDArray[np.int64]:
        """A position of each slot from `first` up to before `last` that may be overwritten.

        That is the next one: whoever goes on in the slot writes it before anybody reads it. A slot
        that is full gives its last one, because nobody can go on in it.
        """
        return np.minimum(self._ends[first:last], self._max_model_len - 1)

    def clear(self, slot: int) -> None:
        """Queue zeros over a slot."""
        tensors = self.tensors(slot, 1)
        for cache, _ in self._buffers:
            self._device.clear(tensors[cache.past])
        self._ends[slot] = 0
        self._unchecked.discard(slot)

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """Queue a copy of the first `num_tokens` positions of a slot into another."""
        for _, buffer in self._buffers:
            num_slots, num_heads, num_positions, _ = buffer.shape
            slot_size = buffer.num_bytes // num_slots
            pitch = slot_size // num_heads
            self._device.copy_rows(
                buffer.pointer + target * slot_size,
                buffer.pointer + source * slot_size,
                num_rows=num_heads,
                row_bytes=pitch // num_positions * num_tokens,
                pitch_bytes=pitch,
            )
        self._ends[target] = num_tokens
        if source in self._unchecked:
            self._unchecked.add(target)

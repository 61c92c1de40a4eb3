"""Keys and values of all slots, written in place by the decoder.

Each half of a layer has one buffer `[slots, heads, positions, head_dim]`. A range of slots is a
contiguous part of it, bound as past and as present at once.

A mask hides positions that are not, or no longer, of a slot's text: they count with a weight of 0.
NaN would come through that, so buffers begin as zeros; see `provider_core.slots.FailedTexts`.
"""

from collections.abc import Sequence

from provider_core.decoder_io import CacheTensor
from provider_core.slots import SlotEnds
from provider_tensorrt.device import Device, DeviceArray


class KvSlots:
    """The slots of one decoder.

    Args:
        device: Where they are.
        caches: The decoder's, in order.
        dtype: Of all of them, numpy's name.
        num_slots: How many.
        max_model_len: Positions of each.

    Attributes:
        ends: How far they are written.
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
        self.ends = SlotEnds(num_slots, max_model_len)
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

    def clear(self, slot: int) -> None:
        """Queue zeros over a slot."""
        for buffer in self.buffers(slot):
            self._device.clear(buffer)
        self.ends.note(slot, [0])

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """Queue a copy of the first `num_tokens` positions of a slot into another."""
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
        self.ends.note(target, [num_tokens])

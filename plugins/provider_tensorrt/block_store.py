"""Blocks of prompts, copied out of slots and into slots on the device.

The blocks of a buffer lie one behind the other in every head, as positions do in a slot, so that a
run of consecutive blocks is one strided copy.
"""

from collections.abc import Iterator, Sequence

from provider_tensorrt.device import Device, DeviceArray
from provider_tensorrt.kv_slots import KvSlots

BLOCK_SIZE = 32
"""Tokens of a block. Shorter ones share more of a prompt; runs of them are one copy anyway."""


class DeviceBlockStore:
    """Keys and values of blocks.

    Args:
        device: Where they are, and the slots.
        slots: To copy from and to.
        num_blocks: How many there is room for, at least one.
    """

    def __init__(self, device: Device, slots: KvSlots, num_blocks: int) -> None:
        self._device = device
        self._slots = slots
        self._buffers = []
        for slot in slots.buffers(0):
            num_heads, _, head_dim = slot.shape
            shape = (num_heads, num_blocks * BLOCK_SIZE, head_dim)
            self._buffers.append(device.allocate(shape, slot.dtype.name))

    def save(self, slot: int, first_token: int, block_ids: Sequence[int]) -> None:
        """Queue copies of consecutive blocks of a slot, from position `first_token` on."""
        for start, block_id, num_blocks in find_runs(block_ids):
            position = first_token + start * BLOCK_SIZE
            for buffer, source in zip(self._buffers, self._slots.buffers(slot), strict=True):
                self._copy(buffer, block_id * BLOCK_SIZE, source, position, num_blocks)

    def load(self, slot: int, block_ids: Sequence[int]) -> None:
        """Queue copies of blocks into a slot, one behind the other from position 0 on."""
        for start, block_id, num_blocks in find_runs(block_ids):
            position = start * BLOCK_SIZE
            for buffer, target in zip(self._buffers, self._slots.buffers(slot), strict=True):
                self._copy(target, position, buffer, block_id * BLOCK_SIZE, num_blocks)

    def _copy(
        self,
        target: DeviceArray,
        target_position: int,
        source: DeviceArray,
        source_position: int,
        num_blocks: int,
    ) -> None:
        """Copy positions of every head between arrays `[heads, positions, head_dim]`."""
        num_heads, _, head_dim = source.shape
        position_bytes = head_dim * source.dtype.itemsize
        self._device.copy_rows(
            target.pointer + target_position * position_bytes,
            source.pointer + source_position * position_bytes,
            num_rows=num_heads,
            row_bytes=num_blocks * BLOCK_SIZE * position_bytes,
            target_pitch=target.shape[1] * position_bytes,
            source_pitch=source.shape[1] * position_bytes,
        )


def find_runs(block_ids: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Cut ids into runs of consecutive ones: of each the first's place, its id, and the length."""
    start = 0
    for end in range(1, len(block_ids) + 1):
        if end == len(block_ids) or block_ids[end] != block_ids[end - 1] + 1:
            yield start, block_ids[start], end - start
            start = end

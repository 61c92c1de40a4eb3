"""Blocks of prompts, copied out of slots and into slots."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from provider_onnxruntime.kv_pool import HostKvPool, reserve

BLOCK_SIZE = 16
"""Tokens of a block. Shorter ones share more of a prompt and cost more copies."""


class HostBlockStore:
    """Keys and values of blocks, in the host's memory.

    A block lies in one piece, all layers of it, so that a store takes memory as it fills.

    Args:
        pool: The slots to copy from and to.
        num_bytes: Memory it may take.

    Raises:
        ConfigurationError: The system does not grant that much address space.
    """

    def __init__(self, pool: HostKvPool, num_bytes: int) -> None:
        self._pool = pool
        sizes = [array.shape[1] * BLOCK_SIZE * array.shape[3] for array in pool.arrays]
        dtype = pool.arrays[0].dtype
        self.num_blocks = num_bytes // (sum(sizes) * dtype.itemsize)
        blocks = reserve((max(self.num_blocks, 1), sum(sizes)), dtype, in_huge_pages=True)
        self._blocks: list[npt.NDArray[Any]] = []  # one view a buffer: [blocks, heads, tokens, dim]
        for array, size, end in zip(pool.arrays, sizes, np.cumsum(sizes).tolist(), strict=True):
            shape = (len(blocks), array.shape[1], BLOCK_SIZE, array.shape[3])
            self._blocks.append(blocks[:, end - size : end].reshape(shape))

    def save(self, slot: int, first_token: int, block_ids: Sequence[int]) -> None:
        """Copy consecutive blocks of a slot, from position `first_token` on."""
        for array, blocks in zip(self._pool.arrays, self._blocks, strict=True):
            blocks[block_ids] = _as_blocks(array[slot], first_token, len(block_ids))

    def load(self, slot: int, block_ids: Sequence[int]) -> None:
        """Copy blocks into a slot, one behind the other from position 0 on."""
        for array, blocks in zip(self._pool.arrays, self._blocks, strict=True):
            _as_blocks(array[slot], 0, len(block_ids))[...] = blocks[block_ids]

    def close(self) -> None:
        """Give the memory back."""
        self._blocks = []


def _as_blocks(slot: npt.NDArray[Any], first_token: int, num_blocks: int) -> npt.NDArray[Any]:
    """A slot's `[heads, positions, dim]` as a view `[num_blocks, heads, BLOCK_SIZE, dim]`."""
    num_heads, _, head_dim = slot.shape
    tokens = slot[:, first_token : first_token + num_blocks * BLOCK_SIZE]
    return tokens.reshape(num_heads, num_blocks, BLOCK_SIZE, head_dim).swapaxes(0, 1)

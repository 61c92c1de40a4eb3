"""Keys and values of all slots, one buffer for each half of a layer.

A buffer is `[max_num_seqs, num_heads, max_model_len, head_dim]`. The first n slots are a
contiguous array, and so is any one slot: both can be bound to a session by pointer without a copy.
Pages are committed when they are first written, so that 32 slots of 16,384 positions cost what
they hold.
"""

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from provider_core.decoder_io import CacheTensor


class KvPool:
    """Buffers in the memory of the host.

    Args:
        caches: The decoder's, in order.
        dtype: Of all of them.
        max_num_seqs: Slots.
        max_model_len: Positions of a slot.
    """

    def __init__(
        self, caches: Sequence[CacheTensor], dtype: str, max_num_seqs: int, max_model_len: int
    ) -> None:
        self.max_num_seqs, self.max_model_len = max_num_seqs, max_model_len
        shapes = [
            (max_num_seqs, cache.num_heads, max_model_len, cache.head_dim) for cache in caches
        ]
        self.arrays = [_reserve(shape, np.dtype(dtype)) for shape in shapes]

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` positions of one slot into another."""
        for array in self.arrays:
            array[target, :, :num_tokens] = array[source, :, :num_tokens]

    def close(self) -> None:
        """Give the memory back once nothing is bound to it."""
        self.arrays = []


def _reserve(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Zeros that take memory only where they are written.

    Not `numpy.zeros`: it asks for huge pages, and then one token of a slot would commit 2 MiB in
    every head of every layer.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    pages = mmap.mmap(-1, size, access=mmap.ACCESS_COPY)  # private and anonymous
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # Linux
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype).reshape(shape)

"""Keys and values of all slots, one buffer for each half of a layer.

A buffer is `[max_num_seqs, num_heads, max_model_len, head_dim]`. The first n slots are a
contiguous array, and so is any one slot: both can be bound to a session by pointer without a copy.
"""

import mmap
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from provider_core import ConfigurationError
from provider_core.decoder_io import CacheTensor
from provider_onnxruntime.device_array import DeviceArray


class KvPool(Protocol):
    """Slots in the memory of some device."""

    max_num_seqs: int
    max_model_len: int

    def slots(self, first: int, count: int) -> list[DeviceArray]:
        """Each buffer's `[count, num_heads, max_model_len, head_dim]` from slot `first` on."""
        ...

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` positions of one slot into another."""
        ...

    def clear(self, slot: int, num_tokens: int) -> None:
        """Write zeros over the first `num_tokens` positions of a slot."""
        ...

    def close(self) -> None:
        """Give the memory back once nothing is bound to it."""
        ...


class HostKvPool:
    """Slots in the host's memory.

    Pages are committed when they are first written, so that 32 slots of 16,384 positions cost
    what they hold.

    Args:
        caches: The decoder's, in order.
        dtype: Of all of them.
        max_num_seqs: Slots.
        max_model_len: Positions of a slot.

    Raises:
        ConfigurationError: The system does not grant that much address space.
    """

    def __init__(
        self, caches: Sequence[CacheTensor], dtype: str, max_num_seqs: int, max_model_len: int
    ) -> None:
        self.max_num_seqs, self.max_model_len = max_num_seqs, max_model_len
        self.arrays = [reserve(shape, np.dtype(dtype)) for shape in buffer_shapes(self, caches)]

    def slots(self, first: int, count: int) -> list[DeviceArray]:
        """Views of the buffers."""
        return [DeviceArray.of(array[first : first + count]) for array in self.arrays]

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` positions of one slot into another."""
        for array in self.arrays:
            array[target, :, :num_tokens] = array[source, :, :num_tokens]

    def clear(self, slot: int, num_tokens: int) -> None:
        """Write zeros over the first `num_tokens` positions of a slot."""
        for array in self.arrays:
            array[slot, :, :num_tokens] = 0

    def close(self) -> None:
        """Give the memory back once nothing is bound to it."""
        self.arrays = []


def buffer_shapes(pool: KvPool, caches: Sequence[CacheTensor]) -> list[tuple[int, int, int, int]]:
    """The shape of each buffer of a pool."""
    return [
        (pool.max_num_seqs, cache.num_heads, pool.max_model_len, cache.head_dim) for cache in caches
    ]


def reserve(
    shape: tuple[int, ...], dtype: np.dtype[Any], *, in_huge_pages: bool = False
) -> npt.NDArray[Any]:
    """Zeros that take memory only where they are written.

    Not `numpy.zeros`: it asks for huge pages, and then one token of a slot would commit 2 MiB in
    every head of every layer. What is filled from one end has them, and is filled much faster.

    Raises:
        ConfigurationError: The system does not grant that much address space.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    try:
        pages = mmap.mmap(-1, size, access=mmap.ACCESS_COPY)  # private and anonymous
    except OSError as error:
        raise ConfigurationError(
            f"keys and values need a buffer of {size} bytes, which the system does not grant; "
            "lower max_num_seqs, max_model_len or prefix_cache_mib"
        ) from error
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux
        pages.madvise(mmap.MADV_HUGEPAGE if in_huge_pages else mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype).reshape(shape)

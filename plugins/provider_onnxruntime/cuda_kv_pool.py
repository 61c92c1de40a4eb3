"""Slots in the memory of a CUDA device."""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from provider_core.decoder_io import CacheTensor
from provider_core.slots import SlotEnds
from provider_onnxruntime.cuda_runtime import CudaRuntime
from provider_onnxruntime.device_array import DeviceArray
from provider_onnxruntime.kv_pool import buffer_shapes


class CudaKvPool:
    """Slots on one GPU, allocated by ONNX Runtime and zeroed.

    Args:
        caches: The decoder's, in order.
        dtype: Of all of them.
        max_num_seqs: Slots.
        max_model_len: Positions of a slot.
        device_id: Which GPU.

    Raises:
        ConfigurationError: The CUDA runtime that ONNX Runtime uses cannot be found.

    Attributes:
        runtime: Of the GPU.
        ends: How far slots are written.
    """

    def __init__(
        self,
        caches: Sequence[CacheTensor],
        dtype: str,
        max_num_seqs: int,
        max_model_len: int,
        device_id: int,
    ) -> None:
        self.max_num_seqs, self.max_model_len = max_num_seqs, max_model_len
        self.device_id, self.runtime = device_id, CudaRuntime(device_id)
        self._dtype = np.dtype(dtype)
        self.ends = SlotEnds(max_num_seqs, max_model_len)
        self._shapes = buffer_shapes(self, caches)
        self._values = [
            ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype), "cuda", device_id)
            for shape in self._shapes
        ]

    def slots(self, first: int, count: int) -> list[DeviceArray]:
        """Ranges of the buffers."""
        return [
            DeviceArray("cuda", self.device_id, self._dtype, (count, *shape[1:]), pointer)
            for shape, pointer in zip(self._shapes, self._slot_pointers(first), strict=True)
        ]

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` positions of one slot into another.

        One strided copy a buffer: each head's positions lie `max_model_len` apart. It has ended
        when this returns.

        Raises:
            EngineDead: The device refused.
        """
        pointers = zip(
            self._shapes, self._slot_pointers(source), self._slot_pointers(target), strict=True
        )
        for (_, num_heads, length, head_dim), from_pointer, to_pointer in pointers:
            position_bytes = head_dim * self._dtype.itemsize
            self.runtime.copy_rows(
                to_pointer,
                from_pointer,
                num_rows=num_heads,
                row_bytes=num_tokens * position_bytes,
                pitch=length * position_bytes,
            )
        self.runtime.wait("move a slot")
        self.ends.note(target, [num_tokens])

    def clear(self, slot: int, num_tokens: int) -> None:
        """Write zeros over the first `num_tokens` positions of a slot, and over the one behind.

        There somebody may have written who took it from `ends.free_positions`.

        Raises:
            EngineDead: The device refused.
        """
        num_positions = min(num_tokens + 1, self.max_model_len)
        for (_, num_heads, length, head_dim), pointer in zip(
            self._shapes, self._slot_pointers(slot), strict=True
        ):
            position_bytes = head_dim * self._dtype.itemsize
            self.runtime.clear_rows(
                pointer,
                num_rows=num_heads,
                row_bytes=num_positions * position_bytes,
                pitch=length * position_bytes,
            )
        self.runtime.wait("clear a slot")

    def close(self) -> None:
        """Give the memory back once nothing is bound to it."""
        self._values = []
        self.runtime.close()

    def _slot_pointers(self, slot: int) -> list[int]:
        return [
            value.data_ptr() + slot * int(np.prod(shape[1:])) * self._dtype.itemsize
            for value, shape in zip(self._values, self._shapes, strict=True)
        ]

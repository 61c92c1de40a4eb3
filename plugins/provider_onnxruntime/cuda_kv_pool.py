"""Slots in the memory of a CUDA device."""

import ctypes
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from provider_core import ConfigurationError, EngineDead
from provider_core.decoder_io import CacheTensor
from provider_onnxruntime.device_array import DeviceArray
from provider_onnxruntime.kv_pool import buffer_shapes

DEVICE_TO_DEVICE = 3  # cudaMemcpyKind
DEFAULT_STREAM = ctypes.c_void_p(0)
RUNTIME_LIBRARIES = ("libcudart.so.13", "libcudart.so.12")


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
        self._dtype, self._device_id = np.dtype(dtype), device_id
        self._runtime = _load_runtime()
        self._shapes = buffer_shapes(self, caches)
        self._values = [
            ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype), "cuda", device_id)
            for shape in self._shapes
        ]

    def slots(self, first: int, count: int) -> list[DeviceArray]:
        """Ranges of the buffers."""
        return [
            DeviceArray("cuda", self._device_id, self._dtype, (count, *shape[1:]), pointer)
            for shape, pointer in zip(self._shapes, self._slot_pointers(first), strict=True)
        ]

    def move(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` positions of one slot into another.

        One strided copy a buffer: each head's positions lie `max_model_len` apart. It has ended
        when this returns; sessions leave nothing running either.

        Raises:
            EngineDead: The device refused.
        """
        self._enter()
        pointers = zip(
            self._shapes, self._slot_pointers(source), self._slot_pointers(target), strict=True
        )
        for (_, num_heads, length, head_dim), from_pointer, to_pointer in pointers:
            position_bytes = head_dim * self._dtype.itemsize
            status = self._runtime.cudaMemcpy2D(
                ctypes.c_void_p(to_pointer),
                ctypes.c_size_t(length * position_bytes),
                ctypes.c_void_p(from_pointer),
                ctypes.c_size_t(length * position_bytes),
                ctypes.c_size_t(num_tokens * position_bytes),
                ctypes.c_size_t(num_heads),
                ctypes.c_int(DEVICE_TO_DEVICE),
            )
            _check(status, "move a slot")
        self._wait("move a slot")

    def clear(self, slot: int, num_tokens: int) -> None:
        """Write zeros over the first `num_tokens` positions of a slot, as `move` copies.

        Raises:
            EngineDead: The device refused.
        """
        self._enter()
        for (_, num_heads, length, head_dim), pointer in zip(
            self._shapes, self._slot_pointers(slot), strict=True
        ):
            position_bytes = head_dim * self._dtype.itemsize
            status = self._runtime.cudaMemset2D(
                ctypes.c_void_p(pointer),
                ctypes.c_size_t(length * position_bytes),
                ctypes.c_int(0),
                ctypes.c_size_t(num_tokens * position_bytes),
                ctypes.c_size_t(num_heads),
            )
            _check(status, "clear a slot")
        self._wait("clear a slot")

    def close(self) -> None:
        """Give the memory back once nothing is bound to it."""
        self._values = []

    def _enter(self) -> None:
        """Make the GPU the calling thread's: CUDA has one for each thread, by default the first."""
        _check(self._runtime.cudaSetDevice(ctypes.c_int(self._device_id)), "be selected")

    def _wait(self, what: str) -> None:
        """Wait for the default stream: copies within a device and fills return before they end.

        The streams of sessions do not wait for it, because they are non-blocking ones.
        """
        _check(self._runtime.cudaStreamSynchronize(DEFAULT_STREAM), what)

    def _slot_pointers(self, slot: int) -> list[int]:
        return [
            value.data_ptr() + slot * int(np.prod(shape[1:])) * self._dtype.itemsize
            for value, shape in zip(self._values, self._shapes, strict=True)
        ]


def _check(status: int, what: str) -> None:
    if status != 0:
        raise EngineDead(f"the GPU could not {what} (CUDA error {status})")


def _load_runtime() -> ctypes.CDLL:
    """The CUDA runtime library, which ONNX Runtime has loaded by now."""
    for name in RUNTIME_LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise ConfigurationError(f"none of {', '.join(RUNTIME_LIBRARIES)} can be loaded")

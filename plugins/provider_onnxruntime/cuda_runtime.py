"""What is asked of the CUDA runtime beside ONNX Runtime: copies, fills, and pinned memory.

All of it is done on the default stream, and has ended when a method returns. Streams of sessions do
not wait for that one, because they are non-blocking; sessions leave nothing running either.
"""

import ctypes
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from provider_core import ConfigurationError, EngineDead

HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3  # cudaMemcpyKind
HOST_ALLOC_DEFAULT = 0
DEFAULT_STREAM = ctypes.c_void_p(0)
LIBRARIES = ("libcudart.so.13", "libcudart.so.12")


class CudaRuntime:
    """The runtime of one GPU.

    Args:
        device_id: Which.

    Raises:
        ConfigurationError: The library that ONNX Runtime uses cannot be found.
    """

    def __init__(self, device_id: int) -> None:
        self._device_id = device_id
        self._library = _load_library()
        self._pinned: list[int] = []

    def copy_rows(
        self, target: int, source: int, *, num_rows: int, row_bytes: int, pitch: int
    ) -> None:
        """Queue a copy within the device, of rows that begin a pitch apart; `wait` for it.

        Raises:
            EngineDead: The device refused.
        """
        self._enter()
        status = self._library.cudaMemcpy2D(
            ctypes.c_void_p(target),
            ctypes.c_size_t(pitch),
            ctypes.c_void_p(source),
            ctypes.c_size_t(pitch),
            ctypes.c_size_t(row_bytes),
            ctypes.c_size_t(num_rows),
            ctypes.c_int(DEVICE_TO_DEVICE),
        )
        _check(status, "move a slot")

    def clear_rows(self, target: int, *, num_rows: int, row_bytes: int, pitch: int) -> None:
        """Queue zeros over rows that begin a pitch apart; `wait` for it.

        Raises:
            EngineDead: The device refused.
        """
        self._enter()
        status = self._library.cudaMemset2D(
            ctypes.c_void_p(target),
            ctypes.c_size_t(pitch),
            ctypes.c_int(0),
            ctypes.c_size_t(row_bytes),
            ctypes.c_size_t(num_rows),
        )
        _check(status, "clear a slot")

    def wait(self, what: str) -> None:
        """Wait for what is queued: copies within a device and fills return before they end.

        Raises:
            EngineDead: Some of it failed.
        """
        _check(self._library.cudaStreamSynchronize(DEFAULT_STREAM), what)

    def upload(self, target: int, source: npt.NDArray[Any]) -> None:
        """Copy a contiguous array to the device.

        Raises:
            EngineDead: The device refused.
        """
        self._copy(target, source.ctypes.data, source.nbytes, HOST_TO_DEVICE, "take inputs")
        self.wait("take inputs")

    def download(self, target: npt.NDArray[Any], source: int) -> None:
        """Copy from the device into a contiguous array.

        Raises:
            EngineDead: The device refused.
        """
        self._copy(target.ctypes.data, source, target.nbytes, DEVICE_TO_HOST, "give logits")

    def allocate_pinned(self, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
        """Zeros in the host's memory that the device copies from and to by itself, until `close`.

        Raises:
            EngineDead: The system does not grant them.
        """
        self._enter()
        num_bytes = prod(shape) * np.dtype(dtype).itemsize
        pointer = ctypes.c_void_p()
        _check(
            self._library.cudaHostAlloc(
                ctypes.byref(pointer),
                ctypes.c_size_t(num_bytes),
                ctypes.c_uint(HOST_ALLOC_DEFAULT),
            ),
            f"pin {num_bytes} bytes",
        )
        address = pointer.value or 0
        self._pinned.append(address)
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(address))
        memory[...] = 0
        array: npt.NDArray[Any] = memory.view(dtype).reshape(shape)
        return array

    def close(self) -> None:
        """Give pinned memory back, whatever CUDA says to that. Idempotent."""
        while self._pinned:
            self._library.cudaFreeHost(ctypes.c_void_p(self._pinned.pop()))

    def _copy(self, target: int, source: int, num_bytes: int, kind: int, what: str) -> None:
        self._enter()
        status = self._library.cudaMemcpy(
            ctypes.c_void_p(target),
            ctypes.c_void_p(source),
            ctypes.c_size_t(num_bytes),
            ctypes.c_int(kind),
        )
        _check(status, what)

    def _enter(self) -> None:
        """Make the GPU the calling thread's: CUDA has one for each thread, by default the first."""
        _check(self._library.cudaSetDevice(ctypes.c_int(self._device_id)), "be selected")


def _check(status: int, what: str) -> None:
    if status != 0:
        raise EngineDead(f"the GPU could not {what} (CUDA error {status})")


def _load_library() -> ctypes.CDLL:
    """The CUDA runtime library, which ONNX Runtime has loaded by now."""
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise ConfigurationError(f"none of {', '.join(LIBRARIES)} can be loaded")

"""Memory as a session binds it: where, what, and from which address on."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnxruntime as ort


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A contiguous array on some device. Whoever made it keeps its memory alive.

    Attributes:
        device: ONNX Runtime's name, `cpu` or `cuda`.
        pointer: Address of the first element, on that device.
    """

    device: str
    device_id: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    pointer: int

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> Self:
        """A numpy array's own memory."""
        return cls("cpu", 0, array.dtype, array.shape, array.ctypes.data)


def bind_input(binding: ort.IOBinding, name: str, array: DeviceArray) -> None:
    """Let a session read an input where it lies."""
    binding.bind_input(name, array.device, array.device_id, array.dtype, array.shape, array.pointer)


def bind_output(binding: ort.IOBinding, name: str, array: DeviceArray) -> None:
    """Let a session write an output where it shall lie."""
    binding.bind_output(
        name, array.device, array.device_id, array.dtype, array.shape, array.pointer
    )

"""A step's small inputs: ids, positions, temperatures, sent to the device in one copy."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from provider_core.decoder_io import DecoderIO, InputRole, TensorSpec
from provider_tensorrt.candidate_graph import INVERSE_TEMPERATURE
from provider_tensorrt.device import Device, DeviceArray

ROLES: tuple[InputRole, ...] = ("input_ids", "position_ids", "write_indices")
ALIGNMENT = 256  # bytes; TensorRT wants tensors to begin at such addresses


class StepInputs:
    """Places for the inputs of steps of any shape, one over the other.

    Args:
        device: Where they are read.
        io: The decoder's inputs and outputs.
        max_tokens: New tokens of the largest step, all rows together.
    """

    def __init__(self, device: Device, io: DecoderIO, max_tokens: int) -> None:
        self._device = device
        self._specs = _specs(io)
        size = step_input_bytes(io, max_tokens)
        self._staging = device.allocate_staging((size,), "uint8")
        self._memory = device.allocate((size,), "uint8")

    def place(self, num_rows: int, num_new: int) -> "StepArrays":
        """Where a step of `num_rows` times `num_new` tokens has its inputs: always the same."""
        views: list[npt.NDArray[Any]] = []
        tensors: dict[str, DeviceArray] = {}
        offset = 0
        for spec in self._specs:
            shape = (num_rows, num_new)[: len(spec.shape)]
            dtype = np.dtype(spec.dtype)
            end = offset + prod(shape) * dtype.itemsize
            views.append(self._staging[offset:end].view(dtype).reshape(shape))
            tensors[spec.name] = DeviceArray(self._memory.pointer + offset, shape, dtype)
            offset = align(end)
        return StepArrays(self._device, views, tensors, self._staging[:end], self._memory)


class StepArrays:
    """The inputs of one shape of step.

    Args:
        device: Where they are read.
        views: Of the staging memory, those of `ROLES` and of the temperatures.
        tensors: The same places on the device, by the decoder's names.
        staging: All of the views' memory.
        memory: Its place on the device.

    Attributes:
        tensors: As given.
    """

    def __init__(
        self,
        device: Device,
        views: Sequence[npt.NDArray[Any]],
        tensors: dict[str, DeviceArray],
        staging: npt.NDArray[np.uint8],
        memory: DeviceArray,
    ) -> None:
        self.tensors = tensors
        self._device = device
        self._token_ids, self._positions, self._write_indices, self._inverse_temperatures = views
        self._staging = staging
        self._memory = memory

    def upload(
        self,
        token_ids: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int32],
        padding: npt.NDArray[np.int32] | None = None,
        inverse_temperatures: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Queue a copy of a step's inputs; the step before it must be done.

        Args:
            token_ids: `[n, s]`.
            starts: `[n]`, the position of each row's first new token.
            padding: `[rows of the step - n]`, where further rows write, whose logits nobody reads.
                They say that they stand at position 0: a row that sees no key would come to NaN.
            inverse_temperatures: `[n]`, for the masses of candidates; `None` if nobody reads these.
        """
        num_rows, num_new = token_ids.shape
        self._token_ids[:num_rows] = token_ids
        self._positions[:num_rows] = starts[:, None] + np.arange(num_new)
        self._write_indices[:num_rows] = starts
        if padding is not None:
            self._token_ids[num_rows:] = 0
            self._positions[num_rows:] = 0
            self._write_indices[num_rows:] = padding
        self._inverse_temperatures[:] = 1.0
        if inverse_temperatures is not None:
            self._inverse_temperatures[:num_rows] = inverse_temperatures
        self._device.upload(self._memory, self._staging)


def step_input_bytes(io: DecoderIO, max_tokens: int) -> int:
    """Size of the inputs of a step of at most so many tokens."""
    return sum(align(max_tokens * np.dtype(spec.dtype).itemsize) for spec in _specs(io))


def _specs(io: DecoderIO) -> list[TensorSpec]:
    """What is sent: of two dimensions for each new token, of one for each row."""
    temperature = TensorSpec(INVERSE_TEMPERATURE, "float32", (None,))
    return [*(io.inputs[role] for role in ROLES), temperature]


def align(offset: int) -> int:
    """The next offset at which a tensor may begin."""
    return -(-offset // ALIGNMENT) * ALIGNMENT

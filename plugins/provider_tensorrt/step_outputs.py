"""A step's outputs: logits, which stay on the device, and candidates, brought in one copy."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from provider_core import Candidates
from provider_core.decoder_io import DecoderIO
from provider_tensorrt.block_store import find_runs
from provider_tensorrt.candidate_graph import IDS, LOG_MASSES, LOG_SUM_EXPS, LOGITS
from provider_tensorrt.device import Device, DeviceArray
from provider_tensorrt.step_inputs import align

_DTYPES = {IDS: "int32", LOGITS: "float32", LOG_MASSES: "float32", LOG_SUM_EXPS: "float32"}


class StepOutputs:
    """Places for the outputs of steps of any shape, one over the other.

    Args:
        device: Where they are written.
        io: The decoder's inputs and outputs.
        max_rows: Positions with logits of the largest step, all rows together.
        num_candidates: Of each.
    """

    def __init__(self, device: Device, io: DecoderIO, max_rows: int, num_candidates: int) -> None:
        self._device, self._io, self._num_candidates = device, io, num_candidates
        shape = (max_rows, io.vocab_size)
        self._logits = device.allocate(shape, io.logits.dtype)
        self._host_logits = device.allocate_staging(shape, io.logits.dtype)
        size = _candidate_bytes(max_rows, num_candidates)
        self._memory = device.allocate((size,), "uint8")
        self._staging = device.allocate_staging((size,), "uint8")

    @property
    def max_rows(self) -> int:
        """As given."""
        return len(self._host_logits)

    def tensors(self, num_rows: int, num_logits: int) -> dict[str, DeviceArray]:
        """Where a step writes that makes `num_logits` of each of its rows, by the graph's names."""
        shape = (num_rows, num_logits)
        tensors = {
            name: DeviceArray(self._memory.pointer + offset, (*shape, depth), np.dtype(dtype))
            for name, offset, depth, dtype in _layout(prod(shape), self._num_candidates)
        }
        logits = self._logits.part(0, (*shape, self._io.vocab_size))
        return tensors | {self._io.logits.name: logits}

    def take_logits(self, num_rows: int) -> npt.NDArray[np.floating]:
        """Wait for the step, and bring its first rows of logits, in the decoder's dtype."""
        logits = self._host_logits[:num_rows]
        if num_rows:
            self._device.download(logits, self._logits)
        self._device.synchronize()
        return logits

    def take_candidates(self, num_rows: int, num_placed: int) -> Candidates:
        """Wait for the step, and bring the candidates of its first rows.

        Args:
            num_rows: Whose are wanted.
            num_placed: Of the step.
        """
        size = _candidate_bytes(num_placed, self._num_candidates)
        self._device.download(self._staging[:size], self._memory)
        self._device.synchronize()
        found: dict[str, npt.NDArray[Any]] = {}
        for name, offset, depth, dtype in _layout(num_placed, self._num_candidates):
            end = offset + num_rows * depth * np.dtype(dtype).itemsize
            found[name] = self._staging[offset:end].view(dtype).reshape(num_rows, depth)
        return Candidates(
            token_ids=found[IDS],
            logits=found[LOGITS],
            log_masses=found[LOG_MASSES][:, 0],
            log_sum_exps=found[LOG_SUM_EXPS][:, 0],
        )

    def fetch_logits(self, rows: Sequence[int]) -> npt.NDArray[np.floating]:
        """Bring rows of the last step's logits, `[len(rows), vocab_size]`, in its dtype."""
        row_bytes = self._logits.num_bytes // self.max_rows
        for place, row, count in find_runs(rows):
            shape = (count, self._io.vocab_size)
            source = self._logits.part(row * row_bytes, shape)
            self._device.download(self._host_logits[place : place + count], source)
        self._device.synchronize()
        return self._host_logits[: len(rows)]


def step_output_bytes(io: DecoderIO, max_rows: int, num_candidates: int) -> int:
    """Size of the outputs of a step with at most so many positions that get logits."""
    logits_bytes = max_rows * io.vocab_size * np.dtype(io.logits.dtype).itemsize
    return logits_bytes + _candidate_bytes(max_rows, num_candidates)


def _layout(num_rows: int, num_candidates: int) -> list[tuple[str, int, int, str]]:
    """Of each kind of candidates the name, the offset, the numbers of a row, and their dtype."""
    places, offset = [], 0
    for name, dtype in _DTYPES.items():
        depth = num_candidates if name in {IDS, LOGITS} else 1
        places.append((name, offset, depth, dtype))
        offset = align(offset + num_rows * depth * np.dtype(dtype).itemsize)
    return places


def _candidate_bytes(num_rows: int, num_candidates: int) -> int:
    _, offset, depth, dtype = _layout(num_rows, num_candidates)[-1]
    return align(offset + num_rows * depth * np.dtype(dtype).itemsize)

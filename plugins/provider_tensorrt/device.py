"""What the runner asks of a device: memory, copies, and one loaded decoder to run.

Work is queued on one stream and done in the order it was queued in; `synchronize` waits for all of
it. Two implementations are shipped: `HostDevice` executes the exported graph with ONNX Runtime on
the CPU, `CudaDevice` executes an engine with TensorRT. Everything above them is the same code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from provider_core import EngineDead

Profile = Literal["prefill", "decode"]
"""What an engine is optimised for: several tokens of one row, or one token of several rows."""


class DeviceMemoryFull(EngineDead):
    """The device has no memory left for what was asked; everything else goes on working."""


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A contiguous array in a device's memory, which lives as long as the device is open.

    Attributes:
        pointer: Address of the first element, on that device.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def num_bytes(self) -> int:
        """Size of its content."""
        return prod(self.shape) * self.dtype.itemsize

    def part(self, offset_bytes: int, shape: tuple[int, ...]) -> "DeviceArray":
        """An array of the same dtype inside this one's memory."""
        return DeviceArray(self.pointer + offset_bytes, shape, self.dtype)


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """Bytes of the memory that arrays are allocated in."""

    free_bytes: int
    total_bytes: int


class Execution(Protocol):
    """The decoder on one of its profiles; all executions share its weights and activations."""

    def bind(self, tensors: Mapping[str, DeviceArray], sizes: Mapping[str, int]) -> None:
        """Say where every input and output lies and what shape it has.

        What was captured is forgotten.

        Args:
            tensors: By name. Of an output the shape that it will have.
            sizes: Inputs that are a single number and decide shapes, by name.
        """
        ...

    def enqueue(self) -> None:
        """Queue one step over what is bound; `synchronize` reports whether it failed."""
        ...

    def capture(self) -> None:
        """Let `enqueue` replay what it queues, in one call; after it has run once as bound.

        Where that cannot be done, for want of memory, say, `enqueue` goes on as before.
        """
        ...

    def close(self) -> None:
        """Give its memory back, before the device closes."""
        ...


class Device(Protocol):
    """A device with a decoder in its memory. One thread uses it. Any method may raise `EngineDead`.

    Attributes:
        name: Where it really runs, e.g. `cpu` or `cuda:0`.
        runtime_version: Of what executes the decoder.
        weight_bytes: What the decoder takes, and has taken.
        activation_bytes: What its steps work in, and will take; 0 if they find memory themselves.
    """

    name: str
    runtime_version: str
    weight_bytes: int
    activation_bytes: int

    def memory_info(self) -> MemoryInfo:
        """What is free now."""
        ...

    def allocate(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """Zeros, until `close`.

        Raises:
            ConfigurationError: There is not that much memory.
        """
        ...

    def allocate_staging(self, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
        """Memory of the host that the device copies from and to by itself, until `close`."""
        ...

    def upload(self, target: DeviceArray, source: npt.NDArray[Any]) -> None:
        """Queue a copy of contiguous staging memory, which must stay as it is until it is done."""
        ...

    def download(self, target: npt.NDArray[Any], source: DeviceArray) -> None:
        """Queue a copy into contiguous staging memory, which holds it after `synchronize`."""
        ...

    def clear(self, array: DeviceArray) -> None:
        """Queue zeros over an array."""
        ...

    def copy_rows(
        self,
        target: int,
        source: int,
        *,
        num_rows: int,
        row_bytes: int,
        target_pitch: int,
        source_pitch: int,
    ) -> None:
        """Queue a copy within the device, of rows whose beginnings lie a pitch apart.

        Args:
            target: Address of the first row.
            source: As target; the two do not overlap.
            num_rows: At least one.
            row_bytes: Of each row, copied.
            target_pitch: Bytes from row to row.
            source_pitch: As target.
        """
        ...

    def make_execution(self, profile: Profile) -> Execution:
        """A way to run the decoder.

        Raises:
            DeviceMemoryFull: Closing other executions may help.
        """
        ...

    def keep_kernels(self) -> None:
        """Keep on disk, for the next start, what was compiled for this device, if anything was."""
        ...

    def synchronize(self) -> None:
        """Wait until all that was queued is done."""
        ...

    def close(self) -> None:
        """Give all memory back. Idempotent."""
        ...

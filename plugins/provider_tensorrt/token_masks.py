"""Which ids may come next in each row of a step: all, but for rows that follow a grammar."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from provider_tensorrt.device import Device, DeviceArray
from provider_tensorrt.shapes import bitmask_bytes


class TokenMasks:
    """Bitmasks of the rows on the device.

    Rows without a grammar are sent once, and again after they had one.

    Args:
        device: Where they are read.
        max_rows: Of a step.
        vocab_size: Ids of a mask.
    """

    def __init__(self, device: Device, max_rows: int, vocab_size: int) -> None:
        self._device = device
        shape = (max_rows, bitmask_bytes(vocab_size))
        self._staging = device.allocate_staging(shape, "uint8")
        self._memory = device.allocate(shape, "uint8")
        self._end = max_rows  # behind the last row whose mask on the device is not all ones

    def tensor(self, num_rows: int) -> DeviceArray:
        """The masks of the first rows."""
        return self._memory.part(0, (num_rows, self._memory.shape[1]))

    def upload(self, bitmasks: Mapping[int, npt.NDArray[np.int32]]) -> None:
        """Queue a copy of the rows that change; the step before must be done.

        Args:
            bitmasks: By row; the others are allowed all ids.
        """
        end = max(bitmasks, default=-1) + 1
        num_changed = max(end, self._end)
        if num_changed:
            self._staging[:num_changed] = 0xFF
            for row, bitmask in bitmasks.items():
                self._staging[row] = bitmask.view(np.uint8)
            self._device.upload(self._memory, self._staging[:num_changed])
        self._end = end

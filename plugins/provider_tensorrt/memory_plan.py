"""How many slots fit: arithmetic over what is known at load, so that nothing has to be tried."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from provider_core import ConfigurationError
from provider_core.decoder_io import CacheTensor
from provider_tensorrt.device import MemoryInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What a decoder takes beside its weights, which are loaded already.

    Attributes:
        slot_bytes: Keys and values of one slot, all layers and positions.
        activation_bytes: What a step works in.
        step_bytes: Inputs and outputs of the largest step.
        reserve_bytes: Left to the driver, to captured graphs, and to whoever else is there.
        memory: Of the device, with the weights loaded.
    """

    slot_bytes: int
    activation_bytes: int
    step_bytes: int
    reserve_bytes: int
    memory: MemoryInfo

    def count_slots(self, wanted: int) -> int:
        """As many slots as are wanted, or as fit.

        Raises:
            ConfigurationError: Not even one fits; with all the numbers.
        """
        fitting = self._spare_bytes // self.slot_bytes
        if fitting < 1:
            raise ConfigurationError(
                f"no slot fits: one takes {_mib(self.slot_bytes)} beside activations of "
                f"{_mib(self.activation_bytes)}, inputs and outputs of {_mib(self.step_bytes)} and "
                f"a reserve of {_mib(self.reserve_bytes)}; of {_mib(self.memory.total_bytes)} "
                f"{_mib(self.memory.free_bytes)} are free beside the weights. "
                "Lower max_model_len, or memory_reserve_mib"
            )
        return min(wanted, fitting)

    def count_blocks(self, wanted_bytes: int, block_bytes: int, num_slots: int) -> int:
        """Blocks of prompts for which there is room beside the slots, in no more than is wanted."""
        left_bytes = self._spare_bytes - num_slots * self.slot_bytes
        return max(0, min(wanted_bytes, left_bytes) // block_bytes)

    @property
    def _spare_bytes(self) -> int:
        fixed = self.activation_bytes + self.step_bytes + self.reserve_bytes
        return self.memory.free_bytes - fixed


def slot_bytes(caches: Sequence[CacheTensor], dtype: str, max_model_len: int) -> int:
    """Size of one slot."""
    values = sum(prod((cache.num_heads, max_model_len, cache.head_dim)) for cache in caches)
    return values * np.dtype(dtype).itemsize


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.0f} MiB"

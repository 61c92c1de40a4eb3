"""Two sets of weights over one pool of slots: one is faster for few tokens, one for many."""

from typing import Protocol

import numpy as np
import numpy.typing as npt


class Decoder(Protocol):
    """Runs steps over a pool."""

    def run(
        self,
        first_slot: int,
        token_ids: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int32],
        num_logits: int,
    ) -> npt.NDArray[np.float32]:
        """Run new tokens of consecutive slots; return logits, valid until the next step."""
        ...

    def close(self) -> None:
        """Let go of the pool's memory."""
        ...


class HybridDecoder:
    """Decodes few rows with one set, and does all else with the other.

    Prompts are computed by `many`, however they are cut, so that what a prefix cache keeps of them
    does not depend on who came when. A prompt of a single token looks like a decode and is
    computed as one; it fills no block of a cache.

    Args:
        few: Decodes up to `max_few` rows: weights of fewer bytes.
        many: Decodes more rows, and computes prompts: faster arithmetic.
        max_few: Rows of one new token each.
    """

    def __init__(self, few: Decoder, many: Decoder, max_few: int) -> None:
        self._few, self._many = few, many
        self._max_few = max_few

    def run(
        self,
        first_slot: int,
        token_ids: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int32],
        num_logits: int,
    ) -> npt.NDArray[np.float32]:
        """Run a step; arguments and answer are those of `SharedCacheDecoder.run`."""
        num_rows, num_new = token_ids.shape
        decoder = self._few if num_new == 1 and num_rows <= self._max_few else self._many
        return decoder.run(first_slot, token_ids, starts, num_logits)

    def close(self) -> None:
        """Let go of the pool's memory."""
        self._few.close()
        self._many.close()

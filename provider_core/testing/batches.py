"""Batches as the scheduler makes them, for calling a runner directly."""

from collections.abc import Sequence

import numpy as np

from provider_core.interfaces import Batch


def prefill_batch(
    slot: int, token_ids: Sequence[int], *, num_computed_tokens: int = 0, num_logits: int = 1
) -> Batch:
    """A piece of one prompt, for one slot."""
    return Batch(
        "prefill",
        np.array([slot], dtype=np.int32),
        np.array([list(token_ids)], dtype=np.int64),
        np.array([num_computed_tokens], dtype=np.int32),
        num_logits,
    )


def decode_batch(token_ids: Sequence[int], num_computed_tokens: Sequence[int]) -> Batch:
    """One new token for each of the first slots."""
    return Batch(
        "decode",
        np.arange(len(token_ids), dtype=np.int32),
        np.array(token_ids, dtype=np.int64)[:, None],
        np.array(num_computed_tokens, dtype=np.int32),
        1,
    )

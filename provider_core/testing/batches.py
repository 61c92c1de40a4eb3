"""Batches as the scheduler makes them, for calling a runner directly."""

from collections.abc import Iterator, Sequence

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


def prefill_batches(
    slot: int, token_ids: Sequence[int], *, chunk: int, num_computed_tokens: int = 0
) -> Iterator[Batch]:
    """A prompt cut into chunks of a size, as the scheduler cuts: none of just one token.

    Args:
        slot: Where the prompt is computed.
        token_ids: The whole prompt.
        chunk: Most tokens of a batch, at least 3.
        num_computed_tokens: How many of the prompt's first tokens the slot holds already.
    """
    start, end = num_computed_tokens, len(token_ids)
    while start < end:
        size = chunk - 1 if end - start == chunk + 1 else min(chunk, end - start)
        yield prefill_batch(
            slot,
            token_ids[start : start + size],
            num_computed_tokens=start,
            num_logits=int(start + size == end),
        )
        start += size


def decode_batch(token_ids: Sequence[int], num_computed_tokens: Sequence[int]) -> Batch:
    """One new token for each of the first slots."""
    return Batch(
        "decode",
        np.arange(len(token_ids), dtype=np.int32),
        np.array(token_ids, dtype=np.int64)[:, None],
        np.array(num_computed_tokens, dtype=np.int32),
        1,
    )

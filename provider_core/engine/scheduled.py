"""What the scheduler decided: the runner's next batch, and what must be done before it."""

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from provider_core.engine.sequence import Sequence
from provider_core.interfaces import Batch


class Move(NamedTuple):
    """A sequence's change of slot, of which the runner must copy `num_tokens` positions."""

    sequence: Sequence
    source: int
    target: int
    num_tokens: int


class Scheduled(NamedTuple):
    """The runner's next batch, and what must be done before it.

    Attributes:
        batch: What to run.
        rows: Whom for.
        moves: Changes of slots to make first, in order.
        cached_blocks: Stored blocks to load then into the slot of a prompt's first chunk.
        begins: It is a prompt's first chunk.
        decode: The decode of all rows, to run with this prefill in one call.
    """

    batch: Batch
    rows: list[Sequence]
    moves: Seq[Move] = ()
    cached_blocks: Seq[int] = ()
    begins: bool = False
    decode: Batch | None = None


def can_be_mixed(sequence: Sequence) -> bool:
    """Whether a prompt may be computed beside a decode.

    Logits of all its tokens take a call of their own, as images do, and a single token looks like
    a decode.
    """
    request = sequence.request
    is_plain = request.sampling.prompt_logprobs is None and not request.prompt_embeddings
    return is_plain and sequence.num_prompt_tokens > 1


def move(sequence: Sequence, target: int, num_tokens: int) -> Move:
    """Put a sequence into another slot."""
    source, sequence.slot = sequence.slot, target
    return Move(sequence, source, target, num_tokens)


def prefill_batch(sequence: Sequence, num_tokens: int) -> Batch:
    """The next chunk of a prompt, which asks for logits of its last token or of all."""
    start, end = sequence.num_computed_tokens, sequence.num_computed_tokens + num_tokens
    request = sequence.request
    wants_all = request.sampling.prompt_logprobs is not None
    return Batch(
        "prefill",
        np.array([sequence.slot], dtype=np.int32),
        np.array([request.prompt_token_ids[start:end]], dtype=np.int64),
        np.array([start], dtype=np.int32),
        num_tokens if wants_all else int(end == sequence.num_prompt_tokens),
        tuple(_embeddings_between(start, end, request.prompt_embeddings)),
    )


def _embeddings_between(
    start: int, end: int, embeddings: Seq[tuple[int, memoryview]]
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """What of the vectors falls into a piece of the prompt, by its place in the piece."""
    for position, buffer in embeddings:
        values = np.asarray(buffer, np.float32)
        first, last = max(position, start), min(position + len(values), end)
        if first < last:
            yield first - start, values[first - position : last - position]

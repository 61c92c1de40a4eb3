"""Which shapes steps have: few, so that a graph or a binding made for one is used again.

Numbers in, numbers out.
"""

from collections.abc import Iterator

MIN_WINDOW = 64
"""Positions that attention looks at in the shortest step; engines are built from there on."""

MIN_LOGITS_ROWS = 16
"""Rows of logits kept even for few slots: a verified draft wants as many."""

NUM_CANDIDATES = 256
"""Likeliest ids that a step brings of each row: 2 KB. TensorRT chooses 3,840 at most."""


def round_window(num_positions: int, max_model_len: int) -> int:
    """Positions that a step looks at whose longest text has `num_positions`: a power of two."""
    return min(max(MIN_WINDOW, 1 << (num_positions - 1).bit_length()), max_model_len)


def bitmask_bytes(vocab_size: int) -> int:
    """Size of a row's bitmask, a bit for each id, in whole words of 32."""
    return 4 * -(-vocab_size // 32)


def split_prefill(
    num_tokens: int, num_logits: int, *, max_tokens: int, max_logits: int
) -> Iterator[tuple[int, int, int]]:
    """Cut a prefill into pieces that an engine takes, none of them a single token.

    A single token behind a past goes through other kernels than several do, with other rounding.

    Args:
        num_tokens: Of the prefill.
        num_logits: Of how many last tokens logits are wanted.
        max_tokens: Of a piece, at least 3.
        max_logits: Of a piece, at least 3.

    Yields:
        Of each piece the first token, the token behind the last, and the number of its last tokens
        whose logits are wanted.
    """
    size = max_tokens if num_logits <= max_logits else min(max_tokens, max_logits)
    start, first_logit = 0, num_tokens - num_logits
    while start < num_tokens:
        left = num_tokens - start
        end = start + (size - 1 if left == size + 1 else min(left, size))
        yield start, end, min(end - start, max(0, end - first_logit))
        start = end

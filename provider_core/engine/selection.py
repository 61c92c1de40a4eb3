"""The likeliest tokens of a row, without sorting its vocabulary."""

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int64]

_GROUP = 64  # most tokens per group whose highest is looked at for all of them
_IMPOSSIBLE = np.uint64(0x7F800000 << 32)  # sort key of an infinite distance


def reached_by(scaled: _Floats, num_tokens: _Ints) -> _Floats:
    """A value that at least `num_tokens` of each row reach, and not many more.

    The k-th highest of the maxima of groups of tokens is such a value, and cheaper to find than
    the k-th highest token.

    Args:
        scaled: float32 `[r, vocab_size]`.
        num_tokens: int64 `[r]`, from 1 to vocab_size.

    Returns:
        float32 `[r]`.
    """
    num_rows, vocab_size = scaled.shape
    group_size = min(max(vocab_size // (4 * int(num_tokens.max())), 1), _GROUP)
    num_groups = vocab_size // group_size
    grouped = scaled[:, : num_groups * group_size].reshape(num_rows, group_size, num_groups)
    kth = num_groups - num_tokens
    parted = np.partition(grouped.max(axis=1), np.unique(kth), axis=1)
    reached: _Floats = parted[np.arange(num_rows), kth]
    return reached


def sorted_candidates(scaled: _Floats, floor: _Floats) -> tuple[_Ints, _Floats, _Ints]:
    """The tokens at or above the floor, likeliest first, ties by id.

    They are sorted as integers, for which numpy is ten times faster than for a stable order of
    floats: the distance from the highest logit, whose bits grow with it, above the id.

    Args:
        scaled: float32 `[r, vocab_size]`, at most 0.
        floor: float32 `[r]`, at most each row's highest.

    Returns:
        Their ids and scaled logits, `[r, w]`, padded with minus infinity, and how many each row
        has, `[r]`.
    """
    num_rows, vocab_size = scaled.shape
    is_candidate = scaled >= floor[:, None]
    counts: _Ints = np.count_nonzero(is_candidate, axis=1)
    places = np.flatnonzero(is_candidate)
    ids = places - np.repeat(np.arange(num_rows) * vocab_size, counts)
    distances = np.abs(scaled.reshape(-1)[places]).view(np.uint32).astype(np.uint64)
    width = int(counts.max())
    keys = np.full((num_rows, width), _IMPOSSIBLE, dtype=np.uint64)
    keys[np.arange(width) < counts[:, None]] = (distances << np.uint64(32)) | ids.view(np.uint64)
    keys.sort(axis=1)
    sorted_distances = (keys >> np.uint64(32)).astype(np.uint32).view(np.float32)
    return (keys & np.uint64(2**32 - 1)).astype(np.int64), -sorted_distances, counts

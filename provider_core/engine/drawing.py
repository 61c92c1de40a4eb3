"""From logits to one token id per row: truncation of the distribution, and the draw.

Every filter keeps the likeliest tokens down to some point, so each is a length in the row's
tokens sorted by probability. The filters run in the order top_k, top_p, min_p, top_a, and each
sees the distribution that the one before left, renormalised. Before anything is sorted, the
first filter of a row gives a floor below which no token can pass; only the few above are looked at.

All functions take scaled logits: (logit - the row's highest) / temperature, so the highest is 0.
Uniforms are multiples of 2**-53 below 1, so that their product with a sum stays below that sum.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from provider_core.engine.selection import reached_by, sorted_candidates

_Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

_BLOCK = 256  # tokens per block of the two-level search over a whole vocabulary
_MARGIN = 1e-3  # natural-log units by which a floor is lowered for float32 rounding
_NEGLIGIBLE = 1e-6  # probability that may be lost in all, no more than float32 sums lose
_ROUNDING = 2.0**-21  # of a distance: eight times what float32 may lose in scaling it


@dataclass(frozen=True, slots=True)
class Filters:
    """Truncation parameters of r rows; each array `[r]`.

    Attributes:
        top_k: int64, the k likeliest tokens, ties to the lowest id; less than vocab_size,
            and 0 is off.
        top_p: Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751): the fewest likeliest
            tokens whose probabilities sum to at least p; 1 is off.
        min_p: Tokens with at least min_p times the highest probability (Nguyen et al. 2024,
            arXiv:2407.01082); 0 is off.
        top_a: Tokens with at least top_a times the square of the highest probability (Peng Bo,
            BlinkDL/RWKV-LM, "top-a sampling"); 0 is off.
    """

    top_k: _Ints
    top_p: _Doubles
    min_p: _Doubles
    top_a: _Doubles

    @property
    def is_top_a_alone(self) -> npt.NDArray[np.bool_]:
        """Rows where no filter comes before top_a, `[r]`."""
        alone: npt.NDArray[np.bool_] = (self.top_k <= 0) & (self.top_p >= 1.0) & (self.min_p <= 0.0)
        return alone


def draw_whole(scaled: _Floats, uniforms: _Doubles) -> _Ints:
    """Draw from the whole vocabulary, by inverting the cumulative distribution.

    Sums blocks first, and then only the block that the draw falls into, because a cumulative sum
    cannot use the processor's vector units and a sum can.

    Args:
        scaled: `[r, vocab_size]`.
        uniforms: `[r]` in [0, 1).

    Returns:
        Token ids, `[r]`; never one of probability 0.
    """
    num_rows, vocab_size = scaled.shape
    num_blocks = -(-vocab_size // _BLOCK)
    weights = np.zeros((num_rows, num_blocks * _BLOCK), dtype=np.float32)
    np.exp(scaled, out=weights[:, :vocab_size])
    blocks = weights.reshape(num_rows, num_blocks, _BLOCK)
    cumulative = blocks.sum(axis=2).astype(np.float64).cumsum(axis=1)
    rows = np.arange(num_rows)
    target = uniforms * cumulative[:, -1]
    block = (cumulative <= target[:, None]).sum(axis=1)
    target -= np.where(block > 0, cumulative[rows, block - 1], 0.0)
    inner = blocks[rows, block].astype(np.float64).cumsum(axis=1)
    # The block's sum was rounded otherwise: stay inside it.
    target = np.minimum(target, np.nextafter(inner[:, -1], 0.0))
    offset = (inner <= target[:, None]).sum(axis=1)
    ids: _Ints = block * _BLOCK + offset
    return ids


def plausible_ids(
    logits: _Floats, peak: float, temperature: float, filters: Filters
) -> npt.NDArray[np.intp]:
    """The ids of one row that its filters may leave, in order; a draw need not look at others.

    One comparison and no exponential, on raw logits: it costs a fifth of scaling them all. Where
    a filter needs the row's mass, what is cut holds less than `_NEGLIGIBLE` of it. Where it needs
    the k likeliest, none is cut that scaling rounds to a tie with them: ties go to the lowest id.

    Args:
        logits: `[vocab_size]`.
        peak: Their highest.
        temperature: Of the row.
        filters: Of one row.
    """
    if filters.top_k[0] > 0:
        reached = float(reached_by(logits[np.newaxis], filters.top_k)[0])
        floor = reached - (peak - reached) * _ROUNDING
    else:
        share = _NEGLIGIBLE / len(logits)
        if filters.top_p[0] >= 1.0:
            share = max(share, float(filters.min_p[0]))
        floor = peak + temperature * (min(math.log(share), 0.0) - _MARGIN)
    with np.errstate(over="ignore"):  # below float32's lowest: all ids
        return np.flatnonzero(logits >= np.float32(floor))


def draw_filtered(scaled: _Floats, uniforms: _Doubles, filters: Filters) -> _Ints:
    """Draw from what the filters leave; each row has at least one.

    Args:
        scaled: `[r, vocab_size]`.
        uniforms: `[r]` in [0, 1).
        filters: Of the rows.

    Returns:
        Token ids, `[r]`.
    """
    floor, whole_mass = _floors(scaled, filters)
    ids, sorted_scaled, num_candidates = sorted_candidates(scaled, floor)
    weights = np.exp(sorted_scaled).astype(np.float64)
    cumulative = weights.cumsum(axis=1)
    rows = np.arange(len(weights))
    kept = count_kept(weights, cumulative, num_candidates, whole_mass, filters)
    target = uniforms * cumulative[rows, kept - 1]
    chosen: _Ints = ids[rows, (cumulative <= target[:, None]).sum(axis=1)]
    return chosen


def count_kept(
    weights: _Doubles,
    cumulative: _Doubles,
    num_candidates: _Ints,
    whole_mass: _Doubles,
    filters: Filters,
) -> _Ints:
    """How many of each row's likeliest tokens its filters leave, at least one.

    Args:
        weights: Exponentials of scaled logits, `[r, w]`, highest first.
        cumulative: Their sums, `[r, w]`.
        num_candidates: How many of the w are tokens, `[r]`.
        whole_mass: Sum over the vocabulary, `[r]`; read only where `top_p` or `top_a` come first.
        filters: Of the rows.
    """
    rows = np.arange(len(weights))
    has_top_k = filters.top_k > 0
    kept = np.where(has_top_k, np.minimum(filters.top_k, num_candidates), num_candidates)
    mass = np.where(has_top_k, cumulative[rows, kept - 1], whole_mass)
    before = cumulative - weights
    nucleus = (before < (filters.top_p * mass)[:, None]).sum(axis=1)
    kept = np.where(filters.top_p < 1.0, np.minimum(kept, nucleus), kept)
    kept = np.minimum(kept, (weights >= filters.min_p[:, None]).sum(axis=1))
    kept = np.maximum(kept, 1)
    # With weights relative to the highest (1) and s their sum: p >= a * p_max**2 is w >= a / s.
    left = np.where(filters.is_top_a_alone, whole_mass, cumulative[rows, kept - 1])
    least = filters.top_a / left
    num_kept: _Ints = np.minimum(kept, (weights >= least[:, None]).sum(axis=1))
    return np.maximum(num_kept, 1)


def _floors(scaled: _Floats, filters: Filters) -> tuple[_Floats, _Doubles]:
    """Scaled logits below which a row's tokens surely fail its filters, and the rows' masses.

    A filter may only narrow the candidates if those after it need no sum over what it cut. So
    top_k rules alone where it is set; else top_p and min_p together; else top_a.

    Of the tokens with probability under (1 - p) / vocab_size, all together hold less than 1 - p,
    so none is in the nucleus. The mass (sum of exponentials over the vocabulary) is computed only
    for rows that need it, and is 1 in the others.
    """
    num_rows, vocab_size = scaled.shape
    has_top_k = filters.top_k > 0
    mass = np.ones(num_rows)
    summed = np.flatnonzero(~has_top_k & ((filters.top_p < 1.0) | filters.is_top_a_alone))
    if len(summed):
        mass[summed] = np.exp(scaled[summed]).sum(axis=1)
    outside = mass * np.clip(1.0 - filters.top_p, 0.0, 1.0) / vocab_size
    square = np.where(filters.is_top_a_alone, filters.top_a / mass, 0.0)
    share = np.maximum(np.maximum(outside, square), filters.min_p)  # of the highest weight
    with np.errstate(divide="ignore"):
        # The highest token stays whatever the parameters ask, so no floor is above it.
        floor = np.minimum(np.log(share) - _MARGIN, 0.0)
    limited = np.flatnonzero(has_top_k)
    if len(limited):
        floor[limited] = reached_by(scaled[limited], filters.top_k[limited])
    return floor.astype(np.float32), mass

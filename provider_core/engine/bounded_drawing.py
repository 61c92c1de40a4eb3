"""Draws from a row's likeliest tokens: what the whole row would draw, or that they do not tell.

Of the tokens that are not listed one knows that none is likelier than the last that is, and what
they weigh together. A draw is certain if it is the same for all rests that this allows; then it has
the bits that `drawing` gives to whole rows.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from provider_core.engine.drawing import Filters, count_kept
from provider_core.engine.selection import sorted_candidates

_Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ListedTokens:
    """What is known of r rows, k tokens of each; scaled logits as in `drawing`.

    Attributes:
        scaled: float32 `[r, k]`, in the order of the tokens' ids.
        floor: float32 `[r]`: no token that is not listed has a higher scaled logit. Minus infinity
            if all that can be drawn are listed.
        least_mass: float64 `[r]`. The sum of exponentials over all tokens, listed or not, is at
            least this.
        most_mass: float64 `[r]`, and at most this.
    """

    scaled: _Floats
    floor: _Floats
    least_mass: _Doubles
    most_mass: _Doubles


def draw_whole_listed(
    listed: ListedTokens, uniforms: _Doubles, slack: float
) -> tuple[_Ints, _Flags]:
    """What `draw_whole` would draw.

    A token is drawn for the uniforms between the sums of the weights before it and through it.
    Tokens that are not listed may have ids before it, or behind: both ends may be that much higher.

    Args:
        listed: Of r rows.
        uniforms: `[r]` in [0, 1).
        slack: How much of the mass rounding may move.

    Returns:
        Columns, `[r]`, and whether they are certain, `[r]`.
    """
    weights = np.exp(listed.scaled).astype(np.float64)
    cumulative = weights.cumsum(axis=1)
    unlisted = listed.most_mass - cumulative[:, -1]
    target = uniforms * listed.most_mass  # with all of the rest; less of it moves both ends down
    columns: _Ints = (cumulative <= target[:, None]).sum(axis=1)
    columns = np.minimum(columns, weights.shape[1] - 1)
    rows = np.arange(len(weights))
    end = cumulative[rows, columns]
    begin = end - weights[rows, columns] + unlisted
    margin = slack * listed.most_mass
    return columns, (begin + margin <= target) & (target + margin < end)


def draw_filtered_listed(
    listed: ListedTokens, uniforms: _Doubles, filters: Filters
) -> tuple[_Ints, _Flags]:
    """What `draw_filtered` would draw, of rows without `top_a`.

    Filters keep the likeliest tokens: if those that they keep are likelier than any that is not
    listed, and as many for the least and the most mass, they are those of the whole row.

    Args:
        listed: Of r rows.
        uniforms: `[r]` in [0, 1).
        filters: Of the rows.

    Returns:
        Columns, `[r]`, and whether they are certain, `[r]`.
    """
    everything = np.full(len(listed.scaled), -np.inf, dtype=np.float32)
    columns, in_order, num_listed = sorted_candidates(listed.scaled, everything)
    # What is not allowed says nothing of what is not listed, which may be as likely as the floor.
    likeliest = np.maximum(in_order, listed.floor[:, None])
    weights = np.exp(likeliest).astype(np.float64)
    cumulative = weights.cumsum(axis=1)
    kept, most_kept = (
        count_kept(weights, cumulative, num_listed, mass, filters)
        for mass in (listed.least_mass, listed.most_mass)
    )
    rows, width = np.arange(len(weights)), weights.shape[1]
    last_of_top_k = in_order[rows, np.clip(filters.top_k, 1, width) - 1]  # whose mass counts
    has_top_k = (filters.top_k <= width) & (last_of_top_k >= listed.floor)
    is_complete = (likeliest[rows, kept - 1] > listed.floor) & ((filters.top_k == 0) | has_top_k)
    is_complete |= listed.floor == -np.inf
    target = uniforms * cumulative[rows, kept - 1]
    places = (cumulative <= target[:, None]).sum(axis=1)
    chosen: _Ints = columns[rows, np.minimum(places, width - 1)]
    return chosen, is_complete & (kept == most_kept)

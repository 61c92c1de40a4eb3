"""The sampling parameters once more, plainly: one row, float64, the whole vocabulary, sorted.

Written from the parameters' definitions and not from the engine's code, so that a test that
compares the two can find a mistake in either.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from provider_core.types import SamplingParams

_Vector = npt.NDArray[np.float64]


def probabilities(
    logits: npt.NDArray[np.float32],
    params: SamplingParams,
    *,
    prompt: Sequence[int] = (),
    generated: Sequence[int] = (),
    stop_ids: frozenset[int] = frozenset(),
) -> _Vector:
    """The probability of each id to be the next one, `[vocab_size]`."""
    scores = _edited(logits, params, prompt, generated, stop_ids)
    if params.temperature == 0:
        greedy = np.zeros(len(scores))
        greedy[int(np.argmax(scores))] = 1.0
        return greedy
    p = _softmax(scores / params.temperature)
    if params.top_k > 0:
        p = _keep_first(p, params.top_k)
    if params.top_p < 1.0:
        in_order = np.sort(p)[::-1].cumsum()
        p = _keep_first(p, int(np.searchsorted(in_order, params.top_p)) + 1)
    if params.min_p > 0.0:
        p = _keep(p, p >= params.min_p * p.max())
    if params.top_a > 0.0:
        p = _keep(p, (p >= params.top_a * p.max() ** 2) | (p == p.max()))
    return p


def _edited(
    logits: npt.NDArray[np.float32],
    params: SamplingParams,
    prompt: Sequence[int],
    generated: Sequence[int],
    stop_ids: frozenset[int],
) -> _Vector:
    scores = logits.astype(np.float64)
    for token_id, value in params.logit_bias:
        scores[token_id] += value
    for token_id in {*prompt, *generated}:
        if scores[token_id] > 0:
            scores[token_id] /= params.repetition_penalty
        else:
            scores[token_id] *= params.repetition_penalty
    for token_id, count in Counter(generated).items():
        scores[token_id] -= count * params.frequency_penalty + params.presence_penalty
    if len(generated) < params.min_tokens:
        scores[list(stop_ids)] = -np.inf
    return scores


def _softmax(scores: _Vector) -> _Vector:
    weights: _Vector = np.exp(scores - scores.max())
    total: np.float64 = weights.sum()
    return weights / total


def _keep_first(p: _Vector, count: int) -> _Vector:
    """Keep the likeliest `count`, ties to the lowest id."""
    kept = np.zeros(len(p), dtype=bool)
    kept[np.argsort(-p, kind="stable")[:count]] = True
    return _keep(p, kept)


def _keep(p: _Vector, kept: npt.NDArray[np.bool_]) -> _Vector:
    left: _Vector = np.where(kept, p, 0.0)
    total: np.float64 = left.sum()
    return left / total

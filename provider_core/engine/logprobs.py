"""Log probabilities of the model's own distribution: the log-softmax of the raw logits."""

import numpy as np
import numpy.typing as npt

from provider_core.types import TokenLogprobs


def token_logprobs(
    logits: npt.NDArray[np.float32], token_ids: npt.NDArray[np.int64], num_top: int
) -> list[TokenLogprobs]:
    """Log probability of one token per row and of the likeliest others.

    Args:
        logits: float32 `[n, vocab_size]`, untouched.
        token_ids: int64 `[n]`.
        num_top: How many of the likeliest to list; ties to the lower id.

    Returns:
        One entry per row.
    """
    num_rows, vocab_size = logits.shape
    rows = np.arange(num_rows)
    peak = logits.max(axis=1)
    mass = np.exp(logits - peak[:, None]).sum(axis=1, dtype=np.float64)
    normaliser = (peak + np.log(mass))[:, None]  # log-sum-exp of the row
    chosen = (logits[rows, token_ids] - normaliser[:, 0]).tolist()
    num_top = min(num_top, vocab_size)
    if num_top == 0:
        return [
            TokenLogprobs(token_id, min(logprob, 0.0))
            for token_id, logprob in zip(token_ids.tolist(), chosen, strict=True)
        ]
    top = np.sort(np.argpartition(logits, vocab_size - num_top, axis=1)[:, -num_top:], axis=1)
    values = np.take_along_axis(logits, top, axis=1) - normaliser
    order = np.argsort(-values, axis=1, kind="stable")
    top_ids = np.take_along_axis(top, order, axis=1).tolist()
    top_values = np.minimum(np.take_along_axis(values, order, axis=1), 0.0).tolist()
    return [
        TokenLogprobs(token_id, min(logprob, 0.0), tuple(zip(ids, logprobs, strict=True)))
        for token_id, logprob, ids, logprobs in zip(
            token_ids.tolist(), chosen, top_ids, top_values, strict=True
        )
    ]

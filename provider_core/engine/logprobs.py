"""Log probabilities of the model's own distribution: the log-softmax of the raw logits."""

import numpy as np
import numpy.typing as npt

from provider_core.engine.selection import reached_by, sorted_candidates
from provider_core.engine.sequence import Sequence
from provider_core.errors import StepFailed
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
        One entry per row; of a row with NaN or infinity among its logits the numbers are NaN.
    """
    num_rows, vocab_size = logits.shape
    with np.errstate(invalid="ignore"):
        scaled = logits - logits.max(axis=1, keepdims=True)
    log_mass = np.log(np.exp(scaled).sum(axis=1))  # of the row, relative to its highest
    chosen = np.minimum(scaled[np.arange(num_rows), token_ids] - log_mass, 0.0).tolist()
    num_top = min(num_top, vocab_size)
    if num_top == 0:
        return [
            TokenLogprobs(token_id, logprob)
            for token_id, logprob in zip(token_ids.tolist(), chosen, strict=True)
        ]
    floor = reached_by(scaled, np.full(num_rows, num_top))
    ids, sorted_scaled, _ = sorted_candidates(scaled, floor)
    top_ids = ids[:, :num_top].tolist()
    top_logprobs = np.minimum(sorted_scaled[:, :num_top] - log_mass[:, None], 0.0).tolist()
    return [
        TokenLogprobs(token_id, logprob, tuple(zip(row_ids, row_logprobs, strict=True)))
        for token_id, logprob, row_ids, row_logprobs in zip(
            token_ids.tolist(), chosen, top_ids, top_logprobs, strict=True
        )
    ]


def note_prompt_logprobs(sequence: Sequence, logits: npt.NDArray[np.float32]) -> None:
    """Add the log probabilities of one chunk of a sequence's prompt.

    Args:
        sequence: Before the chunk counts as computed.
        logits: float32 `[s, vocab_size]`, those at a position are of the token after it.

    Raises:
        StepFailed: A row is not finite.
    """
    if not np.isfinite(logits.max(axis=1)).all():
        raise StepFailed("the model's logits are not finite")
    start = sequence.num_computed_tokens
    prompt = sequence.request.prompt_token_ids
    if start == 0:
        sequence.prompt_logprobs.append(TokenLogprobs(prompt[0], None))
    next_ids = np.array(prompt[start + 1 : start + 1 + len(logits)], dtype=np.int64)
    if len(next_ids):
        num_top = sequence.request.sampling.prompt_logprobs or 0
        sequence.prompt_logprobs += token_logprobs(logits[: len(next_ids)], next_ids, num_top)

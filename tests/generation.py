"""Greedy generation straight on a model runner, as the engine's scheduler would drive it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from provider_core import ModelRunner
from provider_core.testing import decode_batch, prefill_batches


def prefill_logits(
    runner: ModelRunner, slot: int, prompt: Sequence[int], chunk: int = 256
) -> npt.NDArray[np.float32]:
    """Compute a prompt in chunks; return the last position's logits, `[1, vocab_size]`."""
    logits = np.empty((0, runner.info.vocab_size), np.float32)
    for batch in prefill_batches(slot, prompt, chunk=chunk):
        logits = runner.execute_model(batch)
        assert logits.shape == (batch.num_logits, runner.info.vocab_size)
    return logits.copy()


def prefill(runner: ModelRunner, slot: int, prompt: Sequence[int], chunk: int = 256) -> int:
    """Compute a prompt in chunks; return the likeliest next token."""
    return int(prefill_logits(runner, slot, prompt, chunk).argmax())


def decode(runner: ModelRunner, token_ids: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """One step of the slots 0 to n-1; return each row's likeliest next token."""
    logits = runner.execute_model(decode_batch(token_ids, lengths))
    assert logits.shape == (len(token_ids), runner.info.vocab_size)
    return [int(token_id) for token_id in logits.argmax(axis=-1)]


def generate_greedily(
    runner: ModelRunner, prompts: Sequence[Sequence[int]], num_tokens: int, chunk: int = 256
) -> list[list[int]]:
    """Continue all prompts together, prompt i in slot i."""
    answers = [[prefill(runner, slot, prompt, chunk)] for slot, prompt in enumerate(prompts)]
    for step in range(num_tokens - 1):
        lengths = [len(prompt) + step for prompt in prompts]
        new = decode(runner, [answer[-1] for answer in answers], lengths)
        for answer, token_id in zip(answers, new, strict=True):
            answer.append(token_id)
    return answers

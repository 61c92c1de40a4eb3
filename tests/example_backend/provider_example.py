"""A whole backend: a model that continues a text with what followed the same token before."""

import numpy as np
import numpy.typing as npt

from provider_core import Batch, ModelRunner, ModelSpec, RunnerInfo, hookimpl


class CopyRunner:
    """One induction head and no weights; its cache holds ids instead of keys and values."""

    def __init__(self, model: ModelSpec) -> None:
        self.info = RunnerInfo(
            backend="example",
            backend_version="1.0",
            device="cpu",
            max_num_seqs=model.max_num_seqs,
            max_model_len=model.max_model_len,
            vocab_size=512,
        )
        self._cache = np.zeros((model.max_num_seqs, model.max_model_len), np.int64)

    def warm_up(self) -> None:
        """Nothing to compile."""

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Store each row's new ids in its slot, then predict at its last positions."""
        num_rows, num_new = batch.token_ids.shape
        logits = np.zeros((num_rows, batch.num_logits, self.info.vocab_size), np.float32)
        for row, (slot, start) in enumerate(
            zip(batch.slots, batch.num_computed_tokens, strict=True)
        ):
            stop = start + num_new
            self._cache[slot, start:stop] = batch.token_ids[row]
            for i, end in enumerate(range(stop - batch.num_logits, stop)):
                *history, token = self._cache[slot, : end + 1].tolist()
                seen = [j for j, earlier in enumerate(history) if earlier == token]
                likeliest = self._cache[slot, seen[-1] + 1] if seen else token
                logits[row, i, likeliest] = 10.0
        return logits.reshape(-1, self.info.vocab_size)

    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Copy what a sequence has computed so far to another slot."""
        self._cache[target, :num_tokens] = self._cache[source, :num_tokens]

    def close(self) -> None:
        """Nothing to give back."""


@hookimpl
def load_model(model: ModelSpec) -> ModelRunner | None:
    """Load the models that ask for this backend, and leave all others to others."""
    return CopyRunner(model) if model.backend == "example" else None

"""`ScriptedEncoder`: a real `Encoder` without a model, for tests and for measuring the core."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from provider_core.encoders import EncoderInfo, EncoderRow, EncoderTask


class ScriptedEncoder:
    """A deterministic stand-in for a model: what a row gives follows from its ids alone.

    Args:
        task: What a row gives.
        embedding_size: Numbers of a vector.
        shorter_sizes: To which vectors may be cut.
        max_num_seqs: Most rows of one call.
        max_model_len: Most tokens of a row.
        vocab_size: Ids it has.
        on_encode: Called with the rows of each call before anything else; may block or raise.
        corrupt: Called with each call's output, which it may change or replace.
    """

    def __init__(
        self,
        *,
        task: EncoderTask = "embed",
        embedding_size: int = 8,
        shorter_sizes: Sequence[int] = (),
        max_num_seqs: int = 32,
        max_model_len: int = 512,
        vocab_size: int = 512,
        on_encode: Callable[[Sequence[EncoderRow]], None] | None = None,
        corrupt: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]] | None = None,
    ) -> None:
        self._size = 0 if task == "score" else embedding_size
        self._on_encode = on_encode
        self._corrupt = corrupt
        self.is_closed = False
        self.info = EncoderInfo(
            backend="scripted",
            backend_version="1",
            device="cpu",
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            vocab_size=vocab_size,
            task=task,
            embedding_size=self._size,
            shorter_sizes=shorter_sizes,
            is_normalized=True,
        )

    def warm_up(self) -> None:
        """Nothing to compile."""

    def encode(self, rows: Sequence[EncoderRow]) -> npt.NDArray[np.float32]:
        """Each row's own values: vectors of length 1, or scores between 0 and 1."""
        if self._on_encode is not None:
            self._on_encode(rows)
        if self._size:
            values = np.array([expected_vector(row, self._size) for row in rows], np.float32)
        else:
            values = np.array([expected_score(row) for row in rows], np.float32)
        return values if self._corrupt is None else self._corrupt(values)

    def close(self) -> None:
        """Remember that it was called."""
        self.is_closed = True


def expected_vector(row: EncoderRow, size: int) -> npt.NDArray[np.float32]:
    """float32 `[size]`, what a `ScriptedEncoder` says to a row: order and every id count."""
    phase = float(row.token_ids @ np.arange(1, len(row) + 1))
    vector = np.cos(phase * np.arange(1, size + 1) / size)
    normalized: npt.NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return normalized


def expected_score(row: EncoderRow) -> np.float32:
    """What it says to a pair: which part of the second text's ids are in the first, too."""
    types = np.zeros(len(row)) if row.token_type_ids is None else row.token_type_ids
    second = row.token_ids[types == 1]
    if not len(second):
        return np.float32(0)
    return np.float32(np.isin(second, row.token_ids[types == 0]).mean())

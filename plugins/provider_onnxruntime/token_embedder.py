"""Ids to the vectors that a decoder reads, and an image's vectors in their place."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime as ort


class TokenEmbedder:
    """The embedding table of a decoder that takes vectors.

    Args:
        session: Of `embed_tokens.onnx`: ids `[n, s]` to vectors `[n, s, size]`.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._shown: Sequence[tuple[int, npt.NDArray[np.float32]]] = ()

    def show(self, embeddings: Sequence[tuple[int, npt.NDArray[np.float32]]]) -> None:
        """Read these vectors in the next batches, as `Batch.embeddings` says; none shows none."""
        self._shown = embeddings

    def __call__(self, token_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Vectors `[n, s, size]` of ids `[n, s]`; those that are shown stand in the first row."""
        [vectors] = self._session.run(None, {self._input: token_ids})
        values: npt.NDArray[np.float32] = vectors
        for place, shown in self._shown:
            values[0, place : place + len(shown)] = shown
        return values

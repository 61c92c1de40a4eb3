"""Decoders whose caches grow: the `optimum` convention.

Such a graph appends new keys and values behind the past and returns all of it, so each step copies
the past out of the pool and only the new columns back. Rows of different lengths run together
behind a mask, each past padded to the next power of two: a row's arithmetic, and so its tokens,
then depends on its own length and not on its neighbours'.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from provider_core.decoder_io import DecoderIO
from provider_onnxruntime.kv_pool import HostKvPool
from provider_onnxruntime.step_inputs import fill_inputs, make_inputs
from provider_onnxruntime.token_embedder import TokenEmbedder

MIN_PADDED_LEN = 16
Ints = npt.NDArray[np.int32]


class GrowingCacheDecoder:
    """Runs steps over a pool.

    Args:
        session: Of the decoder.
        io: The decoder's inputs and outputs.
        pool: Holds every slot's past, on the host: a session elsewhere gets copies.
        embedder: Makes vectors of ids, for a decoder that takes those.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        io: DecoderIO,
        pool: HostKvPool,
        embedder: TokenEmbedder | None = None,
    ) -> None:
        self._embedder = embedder
        self._session = session
        self._io = io
        self._pool = pool
        # Without positions a graph may count the padding: only rows of one length run together.
        self._can_pad = "position_ids" in io.inputs
        self._output_names = [io.logits.name, *(cache.present for cache in io.caches)]

    def run(
        self, first_slot: int, token_ids: npt.NDArray[np.int64], starts: Ints, num_logits: int
    ) -> npt.NDArray[np.float32]:
        """Run `[n, s]` new tokens of the n slots from `first_slot` on.

        Arguments and answer are those of `SharedCacheDecoder.run`.
        """
        logits = np.empty((len(starts), num_logits, self._io.vocab_size), np.float32)
        for rows, past_len in self._groups(token_ids.shape[1], starts):
            logits[rows] = self._run_group(
                first_slot + rows, token_ids[rows], starts[rows], past_len, num_logits
            )
        return logits.reshape(-1, self._io.vocab_size)

    def close(self) -> None:
        """Nothing is kept between steps."""

    def _groups(self, num_new: int, starts: Ints) -> Iterator[tuple[npt.NDArray[np.intp], int]]:
        """Rows that can run together, and the length of their past."""
        if self._can_pad and num_new == 1:
            exponents = np.ceil(np.log2(np.maximum(starts, MIN_PADDED_LEN)))
            padded = np.minimum(2 ** exponents.astype(np.int32), self._pool.max_model_len)
            padded[starts == 0] = 0  # a graph with `use_cache_branch` ignores a past there
        else:
            padded = starts
        for past_len in np.unique(padded):
            yield np.flatnonzero(padded == past_len), int(past_len)

    def _run_group(
        self,
        slots: npt.NDArray[np.intp],
        token_ids: npt.NDArray[np.int64],
        starts: Ints,
        past_len: int,
        num_logits: int,
    ) -> npt.NDArray[Any]:
        """Logits `[n, num_logits, vocab_size]`, in the graph's dtype."""
        io, num_new = self._io, token_ids.shape[1]
        inputs = make_inputs(io, *token_ids.shape)
        fill_inputs(inputs, token_ids, starts)
        if "num_logits_to_keep" in inputs:
            inputs["num_logits_to_keep"][...] = max(num_logits, 1)
        feed = {io.inputs[role].name: array for role, array in inputs.items()}
        if self._embedder is not None:
            vectors = io.inputs["inputs_embeds"]
            embedded = self._embedder(token_ids)
            feed[vectors.name] = embedded.astype(vectors.dtype, copy=False)
        mask = io.inputs["attention_mask"]
        feed[mask.name] = _make_mask(starts, past_len, num_new, mask.dtype)
        for cache, array in zip(io.caches, self._pool.arrays, strict=True):
            feed[cache.past] = array[slots, :, :past_len]
        logits, *present = self._session.run(self._output_names, feed)
        for array, grown in zip(self._pool.arrays, present, strict=True):
            for row, (slot, start) in enumerate(zip(slots, starts, strict=True)):
                array[slot, :, start : start + num_new] = grown[row, :, past_len:]
        wanted: npt.NDArray[Any] = logits[:, logits.shape[1] - num_logits :]
        return wanted


def _make_mask(starts: Ints, past_len: int, num_new: int, dtype: str) -> npt.NDArray[Any]:
    """`[n, past_len + num_new]`: 1 for each row's own past and for the new tokens behind it."""
    mask = np.ones((len(starts), past_len + num_new), dtype)
    mask[:, :past_len] = np.arange(past_len) < starts[:, np.newaxis]
    return mask

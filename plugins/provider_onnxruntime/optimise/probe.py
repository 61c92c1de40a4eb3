"""A few tokens through two sessions that must agree: what is wrong with a graph on disk shows here.

Weights that are read wrongly give other logits, and no error.
"""

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from provider_core.decoder_io import DecoderIO
from provider_onnxruntime.growing_cache import GrowingCacheDecoder
from provider_onnxruntime.kv_pool import HostKvPool
from provider_onnxruntime.mixed_decoder import MixedDecoder
from provider_onnxruntime.shared_cache import SharedCacheDecoder

NUM_TOKENS, NUM_POSITIONS = 8, 2**15  # the latter more than any sliding window; not touched


def probe(session: ort.InferenceSession, io: DecoderIO) -> npt.NDArray[np.float32]:
    """Logits behind a short prompt."""
    pool = _make_pool(io, 1)
    is_growing = io.convention == "optimum"
    decoder = (GrowingCacheDecoder if is_growing else SharedCacheDecoder)(session, io, pool)
    return decoder.run(0, _tokens(io, NUM_TOKENS), np.zeros(1, np.int32), 1).copy()


def mixes_exactly(
    session: ort.InferenceSession, mixed: ort.InferenceSession, io: DecoderIO
) -> bool:
    """Whether mixed calls give the bits of calls apart: logits, and what they store.

    Args:
        session: Of the decoder.
        mixed: Of what `write_mixed_graph` made of it.
        io: The decoder's inputs and outputs.
    """
    lengths = np.array([5, 3, 7], np.int32)
    token_ids = _tokens(io, len(lengths)).T
    prompt, start, slot = _tokens(io, NUM_TOKENS), np.zeros(1, np.int32), len(lengths)
    results = []
    for is_mixed in (False, True):
        pool = _make_pool(io, slot + 1)
        apart = SharedCacheDecoder(session, io, pool)
        for row, length in enumerate(lengths):
            apart.run(row, _tokens(io, length), start, 1)
        if is_mixed:
            logits = MixedDecoder(mixed, io, pool).run(slot, prompt, start, 1, token_ids, lengths)
        else:
            first = apart.run(slot, prompt, start, 1).copy()
            logits = np.concatenate([first, apart.run(0, token_ids, lengths, 1)])
        stored = [array[:, :, : NUM_TOKENS + 1].copy() for array in pool.arrays]
        results.append([logits, *stored])
    return all(
        np.array_equal(one, other, equal_nan=True) for one, other in zip(*results, strict=True)
    )


def _tokens(io: DecoderIO, count: int) -> npt.NDArray[np.int64]:
    return np.arange(count)[np.newaxis] % io.vocab_size


def _make_pool(io: DecoderIO, num_slots: int) -> HostKvPool:
    return HostKvPool(io.caches, io.cache_dtype, num_slots, io.max_cache_len or NUM_POSITIONS)

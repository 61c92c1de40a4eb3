"""Opening the decoder for mixed calls while the first requests are served without it."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import structlog

from provider_core.decoder_io import DecoderIO
from provider_onnxruntime.kv_pool import HostKvPool, KvPool
from provider_onnxruntime.mixed_decoder import MixedDecoder
from provider_onnxruntime.optimise.prepare import open_mixed
from provider_onnxruntime.settings import OnnxRuntimeSettings

log = structlog.get_logger()


class BackgroundMixedDecoder:
    """A `MixedDecoder` that is there some time after `start`, so that no start waits for it.

    Args:
        path: Of the graph for mixed calls.
        settings: How to run it.
        io: Inputs and outputs of the graph that it was made of.
        pool: Holds what the decoder writes.
    """

    def __init__(
        self, path: Path, settings: OnnxRuntimeSettings, io: DecoderIO, pool: KvPool
    ) -> None:
        self._path, self._settings, self._io, self._pool = path, settings, io, pool
        self._executor = ThreadPoolExecutor(1, "open-mixed")
        self._opening: Future[MixedDecoder | None] | None = None

    def start(self) -> None:
        """Begin to open it; once."""
        if self._opening is None:
            self._opening = self._executor.submit(self._open)

    def get(self) -> MixedDecoder | None:
        """The decoder if it is ready; never if it cannot be opened, which is logged."""
        opening = self._opening
        return opening.result() if opening is not None and opening.done() else None

    def wait(self) -> None:
        """Return when `get` will give the decoder, if it ever will."""
        self._executor.shutdown(wait=True)

    def close(self) -> None:
        """Let go of the pool's memory. Idempotent."""
        self.wait()
        self._opening = None

    def _open(self) -> MixedDecoder | None:
        try:
            return self._open_warm()
        except Exception as error:  # noqa: BLE001 - nobody needs it, and the runtime raises anything
            log.warning("mixed.unavailable", reason=str(error))
            return None

    def _open_warm(self) -> MixedDecoder:
        session = open_mixed(self._path, self._settings)
        length = self._io.max_cache_len or 8
        pool = HostKvPool(self._io.caches, self._io.cache_dtype, 2, length)
        tokens, zero = np.zeros((1, 2), np.int64), np.zeros(1, np.int32)
        MixedDecoder(session, self._io, pool).run(1, tokens, zero, 1, tokens[:, :1], zero)
        return MixedDecoder(session, self._io, self._pool)

"""The model runner: one session, one pool of slots."""

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from provider_core import Batch, ConfigurationError, RunnerInfo
from provider_core.decoder_io import DecoderIO
from provider_onnxruntime.cuda_kv_pool import CudaKvPool
from provider_onnxruntime.growing_cache import GrowingCacheDecoder
from provider_onnxruntime.kv_pool import HostKvPool
from provider_onnxruntime.model_folder import DecoderFile
from provider_onnxruntime.session import open_session
from provider_onnxruntime.settings import OnnxRuntimeSettings
from provider_onnxruntime.shared_cache import SharedCacheDecoder

DTYPES = frozenset({"float32", "float16"})  # of caches and logits; numpy has no bfloat16


class OnnxRuntimeRunner:
    """Runs an exported decoder.

    Args:
        decoder: The checked file and its description.
        settings: How to run it.
        max_num_seqs: Slots.
        max_model_len: Positions of a slot, unless the graph fixes them.

    Raises:
        ConfigurationError: The session cannot be made as asked.
    """

    def __init__(
        self,
        decoder: DecoderFile,
        settings: OnnxRuntimeSettings,
        *,
        max_num_seqs: int,
        max_model_len: int,
    ) -> None:
        io = decoder.io
        _check_servable(io)
        session = open_session(decoder.path, settings)
        if io.max_cache_len is not None:
            max_model_len = io.max_cache_len  # a fixed buffer is bound whole
        size = (io.caches, io.cache_dtype, max_num_seqs, max_model_len)
        self._pool: HostKvPool | CudaKvPool
        self._decoder: GrowingCacheDecoder | SharedCacheDecoder
        if io.convention == "optimum":
            self._pool = HostKvPool(*size)
            self._decoder = GrowingCacheDecoder(session, io, self._pool)
        else:
            on_cuda = settings.provider == "cuda"
            self._pool = CudaKvPool(*size, settings.device_id) if on_cuda else HostKvPool(*size)
            self._decoder = SharedCacheDecoder(session, io, self._pool)
        self._tails = _Tails(max_num_seqs)
        self._runs_row_by_row = io.batch_size == 1
        self._info = RunnerInfo(
            backend="onnxruntime",
            backend_version=ort.__version__,
            device="cpu" if settings.provider == "cpu" else f"cuda:{settings.device_id}",
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            vocab_size=io.vocab_size,
            precision=decoder.precision,
        )

    @property
    def info(self) -> RunnerInfo:
        """Facts that do not change while the runner lives."""
        return self._info

    def warm_up(self) -> None:
        """Run one prefill and one decode; slot 0 holds nothing of worth afterwards."""
        num_new = min(8, self._info.max_model_len - 1)
        prompt = np.zeros((1, num_new), np.int64)
        self._decoder.run(0, prompt, np.array([0], np.int32), 1)
        self._decoder.run(0, prompt[:, :1], np.array([num_new], np.int32), 1)

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Compute one step and store the new keys and values in the rows' slots."""
        first_slot = int(batch.slots[0])
        token_ids, starts = batch.token_ids, batch.num_computed_tokens
        if batch.phase == "prefill":
            token_ids, starts = self._tails.extend(first_slot, token_ids, starts)
        run = self._run_row_by_row if self._runs_row_by_row else self._decoder.run
        return run(first_slot, token_ids, starts, batch.num_logits)

    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Make `target` hold the first `num_tokens` of `source`, whose content is then free."""
        self._pool.move(source, target, num_tokens)
        self._tails.move(source, target)

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        self._decoder.close()
        self._pool.close()

    def _run_row_by_row(
        self,
        first_slot: int,
        token_ids: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int32],
        num_logits: int,
    ) -> npt.NDArray[np.float32]:
        rows = [
            self._decoder.run(
                first_slot + row, token_ids[row : row + 1], starts[row : row + 1], num_logits
            ).copy()
            for row in range(len(token_ids))
        ]
        return np.concatenate(rows)


def _check_servable(io: DecoderIO) -> None:
    if io.batch_size not in {None, 1}:
        raise ConfigurationError(f"the decoder takes batches of exactly {io.batch_size} rows")
    for name, dtype in ((io.caches[0].past, io.cache_dtype), (io.logits.name, io.logits.dtype)):
        if dtype not in DTYPES:
            raise ConfigurationError(f"the decoder's {name!r} is {dtype}, not float32 or float16")


class _Tails:
    """The last token that each slot's prefill has seen.

    A single new token behind a past goes through another attention kernel than several do, with
    other rounding. So a prefill chunk of one token is run as two, the one before it computed again
    (to the same bits): where a prompt is cut then changes nothing. See ADR 0004.
    """

    def __init__(self, max_num_seqs: int) -> None:
        self._token_ids = np.zeros(max_num_seqs, np.int64)
        self._ends = np.zeros(max_num_seqs, np.int32)  # the position after that token

    def extend(
        self, slot: int, token_ids: npt.NDArray[np.int64], starts: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Remember a chunk `[1, s]` that starts at `starts[0]`; return what to run for it."""
        previous = self._token_ids[slot]
        follows = starts[0] > 0 and self._ends[slot] == starts[0]
        self._token_ids[slot] = token_ids[0, -1]
        self._ends[slot] = starts[0] + token_ids.shape[1]
        if token_ids.shape[1] > 1 or not follows:
            return token_ids, starts
        return np.array([[previous, token_ids[0, 0]]]), starts - 1

    def move(self, source: int, target: int) -> None:
        """Follow a slot's content."""
        self._token_ids[target], self._ends[target] = self._token_ids[source], self._ends[source]

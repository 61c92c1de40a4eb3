"""The model runner: one pool of slots, one session, or one for each of two weight sets."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from provider_core import Batch, ConfigurationError, RunnerInfo
from provider_core.decoder_io import CacheTensor, DecoderIO, takes_vectors
from provider_core.slots import FailedTexts, find_lost
from provider_onnxruntime.block_store import BLOCK_SIZE, HostBlockStore
from provider_onnxruntime.growing_cache import GrowingCacheDecoder
from provider_onnxruntime.hybrid_decoder import Decoder, HybridDecoder
from provider_onnxruntime.kv_pool import HostKvPool, KvPool
from provider_onnxruntime.mixed_loading import BackgroundMixedDecoder
from provider_onnxruntime.model_folder import DecoderFile
from provider_onnxruntime.optimise.prepare import OpenedDecoder, open_decoder
from provider_onnxruntime.settings import OnnxRuntimeSettings
from provider_onnxruntime.shared_cache import SharedCacheDecoder
from provider_onnxruntime.token_embedder import TokenEmbedder
from provider_onnxruntime.weight_sets import WeightPlan, verify_margin

MAX_WHOLE_ROWS = 16_384
"""Positions up to which attention computes whole rows of scores, not tiles.

That is twice as fast up to about 1,000 positions, and a tenth slower beyond 8,000. It takes 4 bytes
for each head, new token and position: 470 MB for 14 heads and a chunk of 512.
"""

DTYPES = frozenset({"float32", "float16"})  # of caches and logits; numpy has no bfloat16


class OnnxRuntimeRunner:
    """Runs an exported decoder.

    Args:
        decoder: The checked file and its description.
        settings: How to run it.
        plan: With which weights; by default with those supplied.
        max_num_seqs: Slots.
        max_model_len: Positions of a slot, unless the graph fixes them.
        prefix_cache_mib: Memory for blocks of prompts; only slots on the host have any.
        embedder: Makes vectors of ids, for a decoder that takes those.

    Raises:
        ConfigurationError: The session cannot be made as asked.
    """

    def __init__(
        self,
        decoder: DecoderFile,
        settings: OnnxRuntimeSettings,
        *,
        plan: WeightPlan | None = None,
        max_num_seqs: int,
        max_model_len: int,
        prefix_cache_mib: int = 0,
        embedder: TokenEmbedder | None = None,
    ) -> None:
        io = decoder.io
        _check_servable(io)
        if takes_vectors(io.inputs) and (embedder is None or io.convention != "optimum"):
            raise ConfigurationError(
                "the decoder takes vectors (inputs_embeds): it needs embed_tokens.onnx and "
                "vision_encoder.onnx beside it, and caches that grow"
            )
        self._embedder = embedder
        plan = plan or WeightPlan(decoder.precision, (None,))
        if io.max_cache_len is not None:
            max_model_len = io.max_cache_len  # a fixed buffer is bound whole
        if settings.flash_attention is None:
            needs_tiles = max_model_len > MAX_WHOLE_ROWS
            settings = settings.model_copy(update={"flash_attention": needs_tiles})
        opened, captures = _open(decoder, settings, plan, max_model_len)
        size = (io.caches, io.cache_dtype, max_num_seqs, max_model_len)
        self._pool: KvPool
        decoders: list[Decoder]
        if io.convention == "optimum":
            self._pool = host_pool = HostKvPool(*size)
            decoders = [
                GrowingCacheDecoder(one.session, one.io, host_pool, embedder) for one in opened
            ]
        elif settings.provider == "cpu":
            self._pool = HostKvPool(*size)
            decoders = [SharedCacheDecoder(one.session, one.io, self._pool) for one in opened]
        else:
            self._pool, gpu_decoder = _make_gpu_decoder(
                opened[0], size, settings, captures=captures
            )
            decoders = [gpu_decoder]
        # GroupQueryAttention reads no position that is not of a slot's text.
        self._failed = FailedTexts(self._pool.clear) if io.convention != "genai" else None
        self._decoders = decoders
        self._decoder = decoders[0]
        if len(decoders) > 1:
            few, many = decoders
            self._decoder = HybridDecoder(few, many, settings.hybrid_max_int4_rows)
        self._mixed: BackgroundMixedDecoder | None = None
        if opened[-1].mixed_path is not None and max_num_seqs > 1:
            self._mixed = BackgroundMixedDecoder(
                opened[-1].mixed_path, settings, opened[-1].io, self._pool
            )
        self._store: HostBlockStore | None = None
        if prefix_cache_mib and isinstance(self._pool, HostKvPool):
            self._store = HostBlockStore(self._pool, prefix_cache_mib * 2**20)
        self._runs_row_by_row = io.batch_size == 1
        self._info = RunnerInfo(
            backend="onnxruntime",
            backend_version=ort.__version__,
            device="cpu" if settings.provider == "cpu" else f"cuda:{settings.device_id}",
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            vocab_size=io.vocab_size,
            precision=plan.precision,
            num_cache_blocks=self._store.num_blocks if self._store is not None else 0,
            cache_block_size=BLOCK_SIZE,
            verify_margin=verify_margin(plan, io.cache_dtype),
            mixes_phases=self._mixed is not None,
        )

    @property
    def info(self) -> RunnerInfo:
        """Facts that do not change while the runner lives."""
        return self._info

    def warm_up(self) -> None:
        """Run one token of each weight set, and on a GPU several, too; slot 0 is free afterwards.

        A CPU's first prefill takes no longer than its second: one token shows that it runs.
        """
        num_new = min(8, self._info.max_model_len)
        prompt = np.zeros((1, num_new), np.int64)
        start = np.zeros(1, np.int32)
        for decoder in self._decoders:
            if self._info.device != "cpu":
                decoder.run(0, prompt, start, 1)
            decoder.run(0, prompt[:, :1], start, 1)
        if self._mixed is not None:
            self._mixed.start()

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Compute one step and store the new keys and values in the rows' slots."""
        if self._embedder is not None:
            self._embedder.show(batch.embeddings)
        run = self._run_row_by_row if self._runs_row_by_row else self._decoder.run
        first_slot, starts = int(batch.slots[0]), batch.num_computed_tokens
        if self._failed is not None and batch.phase == "prefill" and starts[0] == 0:
            self._failed.begin(first_slot)
        logits = run(first_slot, batch.token_ids, starts, batch.num_logits)
        if self._failed is not None:
            num_logits = batch.num_logits
            is_lost = find_lost(logits[num_logits - 1 :: num_logits]) if num_logits else None
            self._failed.note(batch, is_lost)
        return logits

    def execute_mixed(self, prefill: Batch, decode: Batch) -> npt.NDArray[np.float32]:
        """Compute both in one call, or in two as long as that is not ready."""
        mixed = self._mixed.get() if self._mixed is not None else None
        if mixed is None:
            first = self.execute_model(prefill).copy()
            return np.concatenate([first, self.execute_model(decode)])
        return mixed.run(
            int(prefill.slots[0]),
            prefill.token_ids,
            prefill.num_computed_tokens,
            prefill.num_logits,
            decode.token_ids,
            decode.num_computed_tokens,
        )

    def wait_until_mixed(self) -> None:
        """Return when calls are mixed, if they ever are."""
        if self._mixed is not None:
            self._mixed.wait()

    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Make `target` hold the first `num_tokens` of `source`, whose content is then free."""
        if self._failed is not None:
            self._failed.move(source, target)
        self._pool.move(source, target, num_tokens)

    def save_blocks(self, slot: int, first_token: int, block_ids: Sequence[int]) -> None:
        """Copy consecutive blocks of a slot, from position `first_token` on, into the store."""
        if self._store is not None:
            self._store.save(slot, first_token, block_ids)

    def load_blocks(self, slot: int, block_ids: Sequence[int]) -> None:
        """Copy stored blocks into a slot, one behind the other from position 0 on."""
        if self._failed is not None:
            self._failed.begin(slot)
        if self._store is not None:
            self._store.load(slot, block_ids)

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        self._decoder.close()
        if self._mixed is not None:
            self._mixed.close()
        if self._store is not None:
            self._store.close()
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


def _open(
    decoder: DecoderFile, settings: OnnxRuntimeSettings, plan: WeightPlan, max_model_len: int
) -> tuple[list[OpenedDecoder], bool]:
    """A session for each weight set, and whether their decodes can be captured as CUDA graphs."""
    if settings.provider != "cpu" or settings.cuda_graphs == "on":
        from provider_onnxruntime.cuda_graphs import open_for_graphs  # noqa: PLC0415 - GPUs only

        session = open_for_graphs(decoder, settings, max_model_len)
        if session is not None:
            return [OpenedDecoder(session, decoder.io)], True
    names = plan.weight_sets
    return [
        open_decoder(decoder, settings, name, max_model_len=max_model_len) for name in names
    ], False


def _make_gpu_decoder(
    opened: OpenedDecoder,
    size: tuple[tuple[CacheTensor, ...], str, int, int],
    settings: OnnxRuntimeSettings,
    *,
    captures: bool,
) -> tuple[KvPool, Decoder]:
    """Slots on the GPU, and what runs steps over them."""
    from provider_onnxruntime.capturing_decoder import CapturingDecoder  # noqa: PLC0415 - GPUs only
    from provider_onnxruntime.cuda_kv_pool import CudaKvPool  # noqa: PLC0415

    pool = CudaKvPool(*size, settings.device_id)
    if not captures:
        return pool, SharedCacheDecoder(opened.session, opened.io, pool)
    is_required = settings.cuda_graphs == "on"
    return pool, CapturingDecoder(opened.session, opened.io, pool, is_required=is_required)


def _check_servable(io: DecoderIO) -> None:
    if io.batch_size not in {None, 1}:
        raise ConfigurationError(f"the decoder takes batches of exactly {io.batch_size} rows")
    for name, dtype in ((io.caches[0].past, io.cache_dtype), (io.logits.name, io.logits.dtype)):
        if dtype not in DTYPES:
            raise ConfigurationError(f"the decoder's {name!r} is {dtype}, not float32 or float16")

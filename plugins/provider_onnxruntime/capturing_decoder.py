"""Decodes on a GPU that are captured once and replayed: a step is one call of the CUDA driver.

A graph holds for one shape and for the addresses it was captured with, so decodes are rounded up to
few shapes, and each has its inputs in memory of its own. Rows that fill up write where nobody
reads, see `SlotEnds.free_positions`. The longest length, which GroupQueryAttention takes from
the host, is part of a graph: it is rounded up, too, and only has to be long enough, because
each row's own length lies on the GPU.
"""

from math import prod
from threading import local
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import structlog

from provider_core import ConfigurationError, gpu_models
from provider_core.decoder_io import DecoderIO, InputRole
from provider_core.slots import round_rows
from provider_onnxruntime.cuda_graphs import NO_GRAPH, make_run_options
from provider_onnxruntime.cuda_kv_pool import CudaKvPool
from provider_onnxruntime.device_array import DeviceArray, bind_input, bind_output
from provider_onnxruntime.shared_cache import SharedCacheDecoder
from provider_onnxruntime.step_inputs import fill_inputs, input_shape

Ints = npt.NDArray[np.int32]
Tokens = npt.NDArray[np.int64]

MAX_GRAPHS = 128
"""ONNX Runtime gives none back before the session ends, and each takes some MiB."""

MIN_WINDOW, WINDOW_FACTOR = 256, 4
ALIGNMENT = 256  # bytes, as CUDA allocates
CONSTANTS: tuple[InputRole, ...] = ("total_sequence_length", "num_logits_to_keep")
"""Scalars that kernels or shapes take from the host: the same in all runs of a graph."""

log = structlog.get_logger()


def round_window(num_positions: int, max_model_len: int) -> int:
    """The longest length that a graph is captured for, of rows that need `num_positions`."""
    window = MIN_WINDOW
    while window < num_positions:
        window *= WINDOW_FACTOR
    return min(window, max_model_len)


class CapturingDecoder:
    """Runs steps over a pool: decodes as graphs, all others as they come.

    Args:
        session: Of the decoder, made to capture.
        io: The decoder's inputs and outputs.
        pool: Holds what the session writes.
        is_required: A session that refuses to capture is an error, not a slower one.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        io: DecoderIO,
        pool: CudaKvPool,
        *,
        is_required: bool = False,
    ) -> None:
        self._session: ort.InferenceSession | None = session
        self._io, self._pool = io, pool
        self._is_required = is_required
        self._plain = SharedCacheDecoder(session, io, pool, run_options=make_run_options(NO_GRAPH))
        self._is_windowed = not io.inputs.keys().isdisjoint(
            {"total_sequence_length", "attention_mask"}
        )
        self._of_thread = local()
        self._graphs: list[_Graphs] = []  # of each thread
        self._num_captured = 0
        self._may_capture, self._has_waited = True, False
        shape = (pool.max_num_seqs, 1, io.vocab_size)
        self._logits = ort.OrtValue.ortvalue_from_shape_and_type(
            shape, np.dtype(io.logits.dtype), "cuda", pool.device_id
        )
        self._host_logits = pool.runtime.allocate_pinned(shape, io.logits.dtype)

    def run(
        self, first_slot: int, token_ids: Tokens, starts: Ints, num_logits: int
    ) -> npt.NDArray[np.float32]:
        """Run a step; arguments and answer are those of `SharedCacheDecoder.run`.

        Raises:
            ConfigurationError: Nothing was captured yet, the session cannot, and it is required.
        """
        num_new, logits = token_ids.shape[1], None
        if first_slot == 0 and num_new == 1 and num_logits == 1:
            logits = self._replay(token_ids, starts)
        if logits is None:
            logits = self._plain.run(first_slot, token_ids, starts, num_logits)
        self._pool.ends.note(first_slot, starts + np.int32(num_new))
        return logits

    def close(self) -> None:
        """Let go of the pool's memory, and of the session, which gives back its own."""
        for graphs in self._graphs:
            graphs.clear()
        self._plain.close()
        self._session = None

    def _replay(self, token_ids: Tokens, starts: Ints) -> npt.NDArray[np.float32] | None:
        """Logits `[n, vocab_size]` of a decode; `None` if there is no graph of its shape."""
        num_rows = len(starts)
        num_rounded = round_rows(num_rows, self._pool.max_num_seqs)
        padded_ids = np.zeros((num_rounded, 1), np.int64)
        padded_ids[:num_rows] = token_ids
        free = self._pool.ends.free_positions(num_rows, num_rounded)
        padded_starts = np.concatenate([starts, free])
        window = self._pool.max_model_len
        if self._is_windowed:
            window = round_window(int(padded_starts.max()) + 1, window)
        graphs, shape = self._find_graphs(), (num_rounded, window)
        step = graphs.get(shape)
        if step is None:
            step = self._capture(shape, padded_ids, padded_starts)
            if step is None:
                return None
            graphs[shape] = step
        else:
            step.run(padded_ids, padded_starts)
        logits = self._host_logits[:num_rows]
        self._pool.runtime.download(logits, self._logits.data_ptr())
        return logits.reshape(num_rows, -1).astype(np.float32, copy=False)

    def _find_graphs(self) -> "_Graphs":
        """The calling thread's: ONNX Runtime captures for each thread anew.

        A model is warmed up by another thread than it is served by. That shows that it can be
        captured.
        """
        graphs: _Graphs | None = getattr(self._of_thread, "graphs", None)
        if graphs is None:
            graphs = self._of_thread.graphs = {}
            self._graphs.append(graphs)
        return graphs

    def _capture(
        self, shape: tuple[int, int], token_ids: Tokens, starts: Ints
    ) -> "_GraphStep | None":
        """Run a step of a new shape; its graph, or none if nothing was run."""
        if not self._may_capture or self._session is None:
            return None
        with gpu_models.GPU_MODELS.capturing() as is_alone:
            if not is_alone:
                self._say_waiting()
                return None
            graph_id = self._num_captured + 1
            step = _GraphStep(self._session, self._io, self._pool, self._logits, shape, graph_id)
            try:
                step.run(token_ids, starts)
            except Exception as error:  # the runtime raises a class of its own per status code
                self._give_up(str(error))
                if self._is_required and not self._num_captured:
                    raise ConfigurationError(
                        f"cuda_graphs is on, and the first decode cannot be captured: {error}"
                    ) from error
                return None
        self._num_captured = graph_id
        if graph_id == MAX_GRAPHS:
            self._give_up(f"there are {MAX_GRAPHS} already")
        return step

    def _say_waiting(self) -> None:
        if not self._has_waited:
            self._has_waited = True
            log.warning("graphs.waiting", reason="other models of this process use a GPU")

    def _give_up(self, reason: str) -> None:
        """Capture no further shape; those that were captured are replayed."""
        self._may_capture = False
        log.warning("graphs.no_more", captured=self._num_captured, reason=reason)


class _GraphStep:
    """One shape of decode, bound to memory of its own, to logits and to slots.

    Args:
        session: Of the decoder.
        io: The decoder's inputs and outputs.
        pool: Of the slots.
        logits: On the GPU, of as many rows as there are slots.
        shape: Rows, and the longest length.
        graph_id: Of no other.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        io: DecoderIO,
        pool: CudaKvPool,
        logits: ort.OrtValue,
        shape: tuple[int, int],
        graph_id: int,
    ) -> None:
        self._session = session
        self._options = make_run_options(graph_id)
        self._binding = session.io_binding()
        num_rows, window = shape
        self._inputs = _StepInputs(io, pool, num_rows, window)
        for name, array in self._inputs.arrays.items():
            bind_input(self._binding, name, array)
        constants: dict[InputRole, int] = {"total_sequence_length": window, "num_logits_to_keep": 1}
        self._constants: list[npt.NDArray[Any]] = []  # bound, so they must live
        for role, value in constants.items():
            spec = io.inputs.get(role)
            if spec is not None:
                self._constants.append(np.full((1,) * len(spec.shape), value, spec.dtype))
                bind_input(self._binding, spec.name, DeviceArray.of(self._constants[-1]))
        for cache, memory in zip(io.caches, pool.slots(0, num_rows), strict=True):
            bind_input(self._binding, cache.past, memory)
            bind_output(self._binding, cache.present, memory)
        dtype, shape_of_logits = np.dtype(io.logits.dtype), (num_rows, 1, io.vocab_size)
        place = DeviceArray("cuda", pool.device_id, dtype, shape_of_logits, logits.data_ptr())
        bind_output(self._binding, io.logits.name, place)

    def run(self, token_ids: Tokens, starts: Ints) -> None:
        """Run on new values; logits are on the GPU when this returns."""
        self._inputs.upload(token_ids, starts)
        self._session.run_with_iobinding(self._binding, self._options)


_Graphs = dict[tuple[int, int], _GraphStep]
"""By rows and the longest length."""


class _StepInputs:
    """Inputs of one shape: written to pinned memory, and brought to the GPU in one copy.

    Args:
        io: The decoder's inputs and outputs.
        pool: On the GPU that they are for.
        num_rows: Of one token each.
        window: Columns of an attention mask.

    Attributes:
        arrays: On the GPU, by the decoder's names.
    """

    def __init__(self, io: DecoderIO, pool: CudaKvPool, num_rows: int, window: int) -> None:
        self._runtime = pool.runtime
        shapes = {
            role: (num_rows, window)
            if role == "attention_mask"
            else input_shape(role, spec, num_rows, 1)
            for role, spec in io.inputs.items()
            if role not in CONSTANTS
        }
        offsets, size = {}, 0
        for role, shape in shapes.items():
            offsets[role] = size
            num_bytes = prod(shape) * np.dtype(io.inputs[role].dtype).itemsize
            size += -(-num_bytes // ALIGNMENT) * ALIGNMENT
        self._staging = pool.runtime.allocate_pinned((size,), "uint8")
        self._memory = ort.OrtValue.ortvalue_from_shape_and_type(
            (size,), np.uint8, "cuda", pool.device_id
        )
        self._views: dict[InputRole, npt.NDArray[Any]] = {}
        self.arrays: dict[str, DeviceArray] = {}
        for role, shape in shapes.items():
            dtype, offset = np.dtype(io.inputs[role].dtype), offsets[role]
            flat = self._staging[offset : offset + prod(shape) * dtype.itemsize]
            self._views[role] = flat.view(dtype).reshape(shape)
            self.arrays[io.inputs[role].name] = DeviceArray(
                "cuda", pool.device_id, dtype, shape, self._memory.data_ptr() + offset
            )

    def upload(self, token_ids: Tokens, starts: Ints) -> None:
        """Bring one step's values to the GPU."""
        fill_inputs(self._views, token_ids, starts)
        mask = self._views.get("attention_mask")
        if mask is not None:
            mask[...] = np.arange(mask.shape[1]) <= starts[:, np.newaxis]
        self._runtime.upload(self._memory.data_ptr(), self._staging)

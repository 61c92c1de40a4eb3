"""Decoders that write keys and values in place: the `genai` and `scatter` conventions.

A step binds the slots' own memory as past and as present, so that nothing is copied. A shape of
step (which slots, how many new tokens) is bound once and kept; running it again costs writing a
few numbers into the arrays that are bound.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from provider_core import EngineDead
from provider_core.decoder_io import CacheTensor, DecoderIO, InputRole
from provider_onnxruntime.device_array import DeviceArray, bind_input, bind_output
from provider_onnxruntime.kv_pool import KvPool
from provider_onnxruntime.step_inputs import fill_inputs, make_inputs, make_length_mask

MAX_STEPS = 256  # shapes kept bound; the least recently used goes first
MIN_LOGITS_ROWS = 16  # rows of logits kept even for few slots: a verified draft wants as many
CPU_PROVIDER = "CPUExecutionProvider"


class SharedCacheDecoder:
    """Runs steps over a pool.

    Args:
        session: Of the decoder.
        io: The decoder's inputs and outputs.
        pool: Holds what the session writes.
        run_options: Of every step.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        io: DecoderIO,
        pool: KvPool,
        *,
        run_options: ort.RunOptions | None = None,
    ) -> None:
        self._session: ort.InferenceSession | None = session
        self._run_options = run_options
        self._io = io
        self._pool = pool
        num_rows = max(pool.max_num_seqs, MIN_LOGITS_ROWS)
        self._logits = np.empty((num_rows, io.vocab_size), io.logits.dtype)
        self._steps: dict[tuple[int, int, int, int], _BoundStep] = {}

    def run(
        self,
        first_slot: int,
        token_ids: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int32],
        num_logits: int,
    ) -> npt.NDArray[np.float32]:
        """Run `[n, s]` new tokens of the n slots from `first_slot` on.

        Args:
            first_slot: Row i lives in slot `first_slot + i`.
            token_ids: int64 `[n, s]`.
            starts: int32 `[n]`, the position of each row's first new token.
            num_logits: Of each row, how many last positions are wanted.

        Returns:
            float32 `[n * num_logits, vocab_size]`, valid until the next step.
        """
        key = (first_slot, *token_ids.shape, num_logits)
        step = self._steps.pop(key, None) or self._bind(*key)
        if step.logits.base is self._logits:
            self._steps[key] = step  # last: the most recently used
            if len(self._steps) > MAX_STEPS:
                del self._steps[next(iter(self._steps))]
        return step.run(token_ids, starts, num_logits, self._run_options)

    def close(self) -> None:
        """Let go of the pool's memory, and of the session, which gives back its own."""
        self._steps.clear()
        self._session = None

    def _bind(self, first_slot: int, num_rows: int, num_new: int, num_logits: int) -> "_BoundStep":
        if self._session is None:
            raise EngineDead("the decoder is closed")
        io = self._io
        per_row = max(num_logits, 1) if "num_logits_to_keep" in io.inputs else num_new
        shape = (num_rows, per_row, io.vocab_size)
        if num_rows * per_row <= len(self._logits):
            logits = self._logits[: num_rows * per_row].reshape(shape)
        else:
            logits = np.empty(shape, io.logits.dtype)  # rare and large: not kept
        step = _BoundStep(self._session, io, make_inputs(io, num_rows, num_new), logits)
        if "num_logits_to_keep" in step.inputs:
            step.inputs["num_logits_to_keep"][...] = per_row
        slots = self._pool.slots(first_slot, num_rows)
        for cache, memory in zip(io.caches, slots, strict=True):
            step.bind_cache(cache, memory)
        return step


class _BoundStep:
    """One shape of step, bound to arrays of its own, to logits and to slots."""

    def __init__(
        self,
        session: ort.InferenceSession,
        io: DecoderIO,
        inputs: dict[InputRole, npt.NDArray[Any]],
        logits: npt.NDArray[Any],
    ) -> None:
        self.inputs = inputs
        self.logits = logits
        self._session = session
        self._mask = io.inputs.get("attention_mask")
        self._binding = session.io_binding()
        self._names = {role: io.inputs[role].name for role in inputs}
        # Binding to a session on another device copies there and then: bind again at every step.
        self._binds_once = session.get_providers()[0] == CPU_PROVIDER
        self._bind_inputs()
        bind_output(self._binding, io.logits.name, DeviceArray.of(logits))

    def bind_cache(self, cache: CacheTensor, memory: DeviceArray) -> None:
        """Bind the same memory as past and as present."""
        bind_input(self._binding, cache.past, memory)
        bind_output(self._binding, cache.present, memory)

    def run(
        self,
        token_ids: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int32],
        num_logits: int,
        options: ort.RunOptions | None,
    ) -> npt.NDArray[np.float32]:
        """Run on new values; the answer is as `SharedCacheDecoder.run` says."""
        fill_inputs(self.inputs, token_ids, starts)
        if not self._binds_once:
            self._bind_inputs()
        if self._mask is not None:
            num_new = token_ids.shape[1]
            mask = make_length_mask(starts + num_new, self._mask.dtype)
            bind_input(self._binding, self._mask.name, DeviceArray.of(mask))
        self._session.run_with_iobinding(self._binding, options)
        wanted = self.logits[:, self.logits.shape[1] - num_logits :]
        return wanted.reshape(-1, wanted.shape[-1]).astype(np.float32, copy=False)

    def _bind_inputs(self) -> None:
        for role, name in self._names.items():
            bind_input(self._binding, name, DeviceArray.of(self.inputs[role]))

"""A prompt's tokens and rows that decode in one call, over slots in place.

The graph is that of `optimise.mixed_graph`: it takes the prompt's tokens and the rows' behind each
other, and lengths and slots of both.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from provider_core.decoder_io import DecoderIO, InputRole
from provider_onnxruntime.device_array import DeviceArray, bind_input, bind_output
from provider_onnxruntime.kv_pool import KvPool
from provider_onnxruntime.step_inputs import fill_inputs, make_inputs

Ints = npt.NDArray[np.int32]
Tokens = npt.NDArray[np.int64]

DECODE = "decode."
"""What the names of the rows' inputs and outputs begin with, where the prompt has its own."""

DECODE_INPUTS: tuple[InputRole, ...] = ("seqlens_k", "total_sequence_length")


class MixedDecoder:
    """Runs mixed calls over a pool.

    Args:
        session: Of the graph for mixed calls.
        io: Inputs and outputs of the graph that it was made of.
        pool: Holds what the session writes.
    """

    def __init__(self, session: ort.InferenceSession, io: DecoderIO, pool: KvPool) -> None:
        self._session = session
        self._io = io
        self._pool = pool
        self._logits = np.empty((pool.max_num_seqs + 1, io.vocab_size), io.logits.dtype)

    def run(
        self,
        slot: int,
        prompt: Tokens,
        start: Ints,
        num_logits: int,
        token_ids: Tokens,
        starts: Ints,
    ) -> npt.NDArray[np.float32]:
        """Run `[1, s]` tokens of a prompt, and `[n, 1]` of the rows in slots 0 to n-1.

        Args:
            slot: The prompt's.
            prompt: int64 `[1, s]`, at least two.
            start: int32 `[1]`, the position of the prompt's first new token.
            num_logits: 1 if the prompt's last token needs logits, else 0.
            token_ids: int64 `[n, 1]`, at least one.
            starts: int32 `[n]`, the position of each row's token.

        Returns:
            float32 `[num_logits + n, vocab_size]`, valid until the next call.
        """
        num_new, num_rows = prompt.shape[1], len(token_ids)
        tokens = np.empty((1, num_new + num_rows), self._io.inputs["input_ids"].dtype)
        of_prompt = make_inputs(self._io, 1, num_new) | {"input_ids": tokens[:, :num_new]}
        fill_inputs(of_prompt, prompt, start)
        of_rows = make_inputs(self._io, num_rows, 1) | {"input_ids": tokens[:, num_new:].T}
        fill_inputs(of_rows, token_ids, starts)
        logits = self._logits[: num_logits + num_rows]
        of_prompt["num_logits_to_keep"][...] = len(logits)
        self._run(of_prompt | {"input_ids": tokens}, of_rows, slot, logits)
        return logits.astype(np.float32, copy=False)

    def _run(
        self,
        of_prompt: dict[InputRole, npt.NDArray[Any]],
        of_rows: dict[InputRole, npt.NDArray[Any]],
        slot: int,
        logits: npt.NDArray[Any],
    ) -> None:
        io, binding = self._io, self._session.io_binding()
        for role, array in of_prompt.items():
            bind_input(binding, io.inputs[role].name, DeviceArray.of(array))
        for role in DECODE_INPUTS:
            bind_input(binding, DECODE + io.inputs[role].name, DeviceArray.of(of_rows[role]))
        num_rows = len(of_rows["input_ids"])
        for prefix, first, count in (("", slot, 1), (DECODE, 0, num_rows)):
            for cache, memory in zip(io.caches, self._pool.slots(first, count), strict=True):
                bind_input(binding, prefix + cache.past, memory)
                bind_output(binding, prefix + cache.present, memory)
        bind_output(binding, io.logits.name, DeviceArray.of(logits[np.newaxis]))
        self._session.run_with_iobinding(binding)

"""The model runner: slots, two profiles, and steps of few shapes over any device."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import structlog

from provider_core import Batch, Candidates, RunnerInfo
from provider_core.decoder_io import DecoderIO
from provider_core.gpu_models import GPU_MODELS
from provider_core.slots import FailedTexts, find_lost, round_rows
from provider_tensorrt.artefact import EngineLimits
from provider_tensorrt.block_store import BLOCK_SIZE, DeviceBlockStore
from provider_tensorrt.candidate_graph import ALLOWED
from provider_tensorrt.decoder_graph import WINDOW
from provider_tensorrt.device import Device, DeviceArray, DeviceMemoryFull, Execution
from provider_tensorrt.kv_slots import KvSlots
from provider_tensorrt.memory_plan import MemoryPlan, slot_bytes
from provider_tensorrt.shapes import MIN_LOGITS_ROWS, bitmask_bytes, round_window, split_prefill
from provider_tensorrt.step_inputs import StepArrays, StepInputs, step_input_bytes
from provider_tensorrt.step_outputs import StepOutputs, step_output_bytes
from provider_tensorrt.token_masks import TokenMasks

MAX_DECODES = 128  # shapes of decode kept bound or captured; the least recently used goes first

log = structlog.get_logger()


class TensorRtRunner:
    """Runs the decoder that a device holds.

    Args:
        device: With the decoder loaded; the runner closes it.
        io: The decoder's inputs and outputs.
        limits: What the decoder was built for.
        max_num_seqs: Slots wanted, at most the decoder's; fewer if memory is short, which is
            logged.
        max_model_len: Positions that texts may have, at most the decoder's.
        precision: Of the weights, in OpenRouter's vocabulary.
        memory_reserve_bytes: Memory to leave free.
        prefix_cache_bytes: Memory for blocks of prompts, at most, if it is left beside the slots.
        verify_margin: See `RunnerInfo`.

    Raises:
        ConfigurationError: Not one slot fits into the device's memory.
    """

    def __init__(
        self,
        device: Device,
        io: DecoderIO,
        limits: EngineLimits,
        *,
        max_num_seqs: int,
        max_model_len: int,
        precision: str | None = None,
        memory_reserve_bytes: int = 0,
        prefix_cache_bytes: int = 0,
        verify_margin: float | None = None,
    ) -> None:
        self._device, self._io, self._limits = device, io, limits
        max_tokens = max(limits.max_prefill_tokens, max_num_seqs)
        max_logits_rows = max(max_num_seqs, MIN_LOGITS_ROWS)
        num_candidates = min(limits.num_candidates, io.vocab_size)
        plan = MemoryPlan(
            slot_bytes=slot_bytes(io.caches, io.cache_dtype, limits.max_model_len),
            activation_bytes=device.activation_bytes,
            step_bytes=step_input_bytes(io, max_tokens)
            + np.dtype(np.int64).itemsize * limits.max_model_len
            + bitmask_bytes(io.vocab_size) * max_num_seqs
            + step_output_bytes(io, max_logits_rows, num_candidates),
            reserve_bytes=memory_reserve_bytes,
            memory=device.memory_info(),
        )
        num_slots = plan.count_slots(max_num_seqs)
        if num_slots < max_num_seqs:
            log.warning("slots.reduced", wanted=max_num_seqs, slots=num_slots, device=device.name)
        self._inputs = StepInputs(device, io, max_tokens)
        self._window = device.allocate((limits.max_model_len,), "int64")
        self._masks = TokenMasks(device, max_num_seqs, io.vocab_size)
        self._outputs = StepOutputs(device, io, max_logits_rows, num_candidates)
        slots = KvSlots(device, io.caches, io.cache_dtype, num_slots, limits.max_model_len)
        self._slots, self._failed = slots, FailedTexts(lambda slot, _: slots.clear(slot))
        block_bytes = slot_bytes(io.caches, io.cache_dtype, BLOCK_SIZE)
        num_blocks = plan.count_blocks(prefix_cache_bytes, block_bytes, num_slots)
        self._store = DeviceBlockStore(device, self._slots, num_blocks) if num_blocks else None
        self._prefill: Execution = device.make_execution("prefill")
        self._decodes: dict[tuple[int, int], _DecodeStep] = {}
        self._info = RunnerInfo(
            backend="tensorrt",
            backend_version=device.runtime_version,
            device=device.name,
            max_num_seqs=num_slots,
            max_model_len=max_model_len,
            vocab_size=io.vocab_size,
            precision=precision,
            num_cache_blocks=num_blocks,
            cache_block_size=BLOCK_SIZE,
            verify_margin=verify_margin,
            max_candidates=num_candidates,
        )

    @property
    def info(self) -> RunnerInfo:
        """Facts that do not change while the runner lives."""
        return self._info

    def warm_up(self) -> None:
        """Run a prefill and a decode of one row, as bound and as captured; slot 0 is free after."""
        slot, start = np.zeros(1, np.int32), np.zeros(1, np.int32)
        token_ids = np.zeros((1, min(8, self._info.max_model_len)), np.int64)
        self.execute_model(Batch("prefill", slot, token_ids, start, 1))
        for _ in range(2):
            self.execute_model(Batch("decode", slot, token_ids[:, :1], start, 1))
        self._device.keep_kernels()

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Compute one step and store the new keys and values in the rows' slots."""
        if batch.phase == "decode":
            self._queue_decode(batch)
            logits = self._outputs.take_logits(len(batch.slots))
        else:
            logits = self._run_prefill(batch)
        num_logits = batch.num_logits
        self._note(batch, find_lost(logits[num_logits - 1 :: num_logits]) if num_logits else None)
        return logits.astype(np.float32, copy=False)

    def execute_candidates(
        self,
        batch: Batch,
        inverse_temperatures: npt.NDArray[np.float32],
        bitmasks: Mapping[int, npt.NDArray[np.int32]],
    ) -> Candidates:
        """Do what `execute_model` does, of which only candidates are brought."""
        self._masks.upload(bitmasks)
        num_placed = 1
        if batch.phase == "decode":
            num_placed = self._queue_decode(batch, inverse_temperatures)
        else:
            for _ in self._queue_prefill(batch, inverse_temperatures):
                self._device.synchronize()
        candidates = self._outputs.take_candidates(len(batch.slots), num_placed)
        is_lost = ~np.isfinite(candidates.log_sum_exps)  # or one logit is infinite or NaN
        if is_lost.any():
            rows = np.flatnonzero(is_lost)
            is_lost[rows] = find_lost(self._outputs.fetch_logits(rows.tolist()))
        self._note(batch, is_lost)
        return candidates

    def fetch_logits(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Bring whole rows of the last `execute_candidates`."""
        return self._outputs.fetch_logits(rows).astype(np.float32, copy=False)

    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Make `target` hold the first `num_tokens` of `source`, whose content is then free."""
        self._failed.move(source, target)
        self._slots.move(source, target, num_tokens)

    def save_blocks(self, slot: int, first_token: int, block_ids: Sequence[int]) -> None:
        """Copy consecutive blocks of a slot, from position `first_token` on, into the store."""
        if self._store is not None:
            self._store.save(slot, first_token, block_ids)

    def load_blocks(self, slot: int, block_ids: Sequence[int]) -> None:
        """Copy stored blocks into a slot, one behind the other from position 0 on."""
        self._failed.begin(slot)
        if self._store is not None:
            self._store.load(slot, block_ids)
            self._slots.ends.note(slot, [len(block_ids) * BLOCK_SIZE])

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        for step in self._decodes.values():
            step.execution.close()
        self._decodes.clear()
        self._prefill.close()
        self._device.close()
        GPU_MODELS.leave(self)

    def _note(self, batch: Batch, is_lost: npt.NDArray[np.bool_] | None) -> None:
        """Remember what slots hold now, and whether they came to NaN.

        Args:
            batch: That was run.
            is_lost: As `find_lost` has it, `[n]`; `None` without any logits.
        """
        ends = batch.num_computed_tokens + np.int32(batch.token_ids.shape[1])
        self._slots.ends.note(int(batch.slots[0]), ends)
        self._failed.note(batch, is_lost)

    def _run_prefill(self, batch: Batch) -> npt.NDArray[np.floating]:
        """Logits `[num_logits, vocab_size]` of one row, in the decoder's dtype."""
        pieces, left = [], batch.num_logits
        for num_logits in self._queue_prefill(batch):
            logits = self._outputs.take_logits(num_logits)
            left -= num_logits
            pieces.append(logits.copy() if left else logits)
        return pieces[-1] if len(pieces[-1]) == batch.num_logits else np.concatenate(pieces)

    def _queue_prefill(
        self, batch: Batch, inverse_temperatures: npt.NDArray[np.float32] | None = None
    ) -> Iterator[int]:
        """Queue one row's pieces, each when the one before is done.

        Yields:
            Of how many last positions of a piece logits are wanted.
        """
        start, slot = batch.num_computed_tokens, int(batch.slots[0])
        if not start[0]:
            self._failed.begin(slot)
        caches = self._slots.tensors(slot, 1)
        for first, last, num_logits in split_prefill(
            batch.token_ids.shape[1],
            batch.num_logits,
            max_tokens=self._limits.max_prefill_tokens,
            max_logits=self._outputs.max_rows,
        ):
            inputs = self._inputs.place(1, last - first)
            longest, num_made = int(start[0]) + last, max(num_logits, 1)
            tensors = inputs.tensors | caches | self._step_tensors(longest, 1, num_made)
            self._prefill.bind(tensors, self._sizes(num_made))
            inputs.upload(
                batch.token_ids[:, first:last],
                start + np.int32(first),
                inverse_temperatures=inverse_temperatures,
            )
            self._prefill.enqueue()
            yield num_logits

    def _queue_decode(
        self, batch: Batch, inverse_temperatures: npt.NDArray[np.float32] | None = None
    ) -> int:
        """Queue one token of each row; returns how many rows are computed."""
        num_rows, longest = len(batch.slots), int(batch.num_computed_tokens.max()) + 1
        num_rounded = round_rows(num_rows, self._info.max_num_seqs)
        key = num_rounded, round_window(longest, self._limits.max_model_len)
        step = self._decodes.pop(key, None) or self._bind_decode(*key)
        self._decodes[key] = step  # last: the most recently used
        if len(self._decodes) > MAX_DECODES:
            self._close_oldest_decode()
        step.inputs.upload(
            batch.token_ids,
            batch.num_computed_tokens,
            self._slots.ends.free_positions(num_rows, num_rounded),
            inverse_temperatures,
        )
        step.run()
        return num_rounded

    def _bind_decode(self, num_rows: int, window: int) -> "_DecodeStep":
        inputs, execution = self._inputs.place(num_rows, 1), self._make_decode_execution()
        caches = self._slots.tensors(0, num_rows)
        execution.bind(
            inputs.tensors | caches | self._step_tensors(window, num_rows, 1), self._sizes(1)
        )
        return _DecodeStep(execution, inputs)

    def _make_decode_execution(self) -> Execution:
        """One more, in the place of the shapes that were not used for longest if memory is short.

        Raises:
            DeviceMemoryFull: There is no room even for this one alone.
        """
        while True:
            try:
                return self._device.make_execution("decode")
            except DeviceMemoryFull:
                if not self._decodes:
                    raise
                log.warning("decodes.reduced", shapes=len(self._decodes), device=self._device.name)
                self._close_oldest_decode()

    def _close_oldest_decode(self) -> None:
        self._decodes.pop(next(iter(self._decodes))).execution.close()

    def _step_tensors(self, longest: int, num_rows: int, num_logits: int) -> dict[str, DeviceArray]:
        """The window for texts of `longest` positions, the masks, and where outputs go."""
        window = round_window(longest, self._limits.max_model_len)
        inputs = {WINDOW: self._window.part(0, (window,)), ALLOWED: self._masks.tensor(num_rows)}
        return inputs | self._outputs.tensors(num_rows, num_logits)

    def _sizes(self, num_logits: int) -> dict[str, int]:
        spec = self._io.inputs["num_logits_to_keep"]
        return {spec.name: num_logits}


class _DecodeStep:
    """One shape of decode: bound once; run as it is at first, and captured from then on."""

    def __init__(self, execution: Execution, inputs: StepArrays) -> None:
        self.inputs = inputs
        self.execution = execution
        self._has_run = False

    def run(self) -> None:
        """Queue the step."""
        if self._has_run:
            self.execution.capture()
        self._has_run = True
        self.execution.enqueue()

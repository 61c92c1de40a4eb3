"""`EngineCore`: one step at a time, synchronous, on whatever thread calls it.

It takes sequences in, runs the runner and the sampler over the scheduler's batches, and collects
what each step made. `LLMEngine` runs it on its thread; tests run it step by step.
"""

from collections.abc import Callable, Iterable

import numpy as np

from provider_core.engine.constraints import MaskWorker
from provider_core.engine.execution import Execution, StepLogits
from provider_core.engine.faults import as_backend_error, check_finite
from provider_core.engine.logprobs import note_prompt_logprobs
from provider_core.engine.outbox import Outbox
from provider_core.engine.prefix_reuse import PrefixReuse
from provider_core.engine.sampler import Sampled, SamplingMetadata, sample
from provider_core.engine.scheduled import Move, Scheduled
from provider_core.engine.scheduler import Scheduler
from provider_core.engine.sequence import Sequence
from provider_core.engine.speculation import Speculator, make_speculator
from provider_core.engine.step_budget import StepBudget
from provider_core.engines import Delivery
from provider_core.errors import DeadlineExceeded, EngineDead, StepFailed
from provider_core.interfaces import Batch, Clock, ModelRunner
from provider_core.types import EngineOutput, FinishReason

MAX_CONSECUTIVE_FAILURES = 5
"""So many failed runner calls in a row, and the engine counts as dead."""


class EngineCore:
    """Owns the runner, the scheduler and every running sequence.

    Args:
        runner: Warmed up; called by this object only.
        prefill_chunk_tokens: Most prompt tokens in one step.
        target_itl_s: Prefill beside decoding rows is cut to keep this inter-token latency.
        max_kv_tokens: Tokens that running sequences may reserve together.
        speculates: Verify drafts of several ids when few sequences run, if the runner can.
        clock: For deadlines and durations.
        on_urgent: Called when outputs should not wait for the end of the step; may be exchanged.
    """

    def __init__(
        self,
        runner: ModelRunner,
        *,
        prefill_chunk_tokens: int,
        target_itl_s: float = 0.15,
        max_kv_tokens: int,
        speculates: bool = False,
        clock: Clock,
        on_urgent: Callable[[], None] = lambda: None,
    ) -> None:
        info = runner.info
        self.runner = runner
        self._execution = Execution(runner)
        self._prefixes = PrefixReuse(runner)
        self.scheduler = Scheduler(
            max_num_seqs=info.max_num_seqs,
            vocab_size=info.vocab_size,
            budget=StepBudget(max_tokens=prefill_chunk_tokens, target_itl_s=target_itl_s),
            max_kv_tokens=max_kv_tokens,
            prefix_cache=self._prefixes.cache,
            mixes=self._execution.mixes,
            now_s=clock.monotonic,
        )
        self.num_steps = 0
        self.num_prompt_tokens = 0  # computed
        self.num_cached_prompt_tokens = 0  # taken from the prefix cache
        self.num_settled_prompt_tokens = 0  # computed, or dropped with their sequence
        self.num_generated_tokens = 0
        self._vocab_size = info.vocab_size
        self.prefill_s = 0.0  # of the steps that computed prompt tokens
        self.speculator = make_speculator(runner, self.scheduler, clock) if speculates else None
        self._clock = clock
        self.on_urgent = on_urgent
        self._sequences: dict[str, Sequence] = {}  # by request id: waiting or running
        self._metadata: SamplingMetadata | None = None  # of the decode rows; None when they change
        self._earliest_deadline_s: float | None = None
        self._num_failures = 0  # runner calls that failed since the last that did not
        self._outbox = Outbox()
        self.masks = MaskWorker(info.vocab_size)

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn."""
        self._sequences[sequence.request.request_id] = sequence
        grammar = sequence.request.grammar
        if grammar is not None:
            sequence.constraint = self.masks.begin(grammar)
        self.scheduler.add(sequence)
        deadline_s = sequence.request.deadline_s
        if deadline_s is not None and (
            self._earliest_deadline_s is None or deadline_s < self._earliest_deadline_s
        ):
            self._earliest_deadline_s = deadline_s

    def abort(self, request_id: str) -> None:
        """End a sequence now, wherever it is; unknown ids are ignored."""
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._end([sequence], "abort")

    def abort_all(self) -> None:
        """End every sequence with `abort`, without the runner."""
        self._drop_all("abort", None)

    def fail_all(self, error: Exception) -> None:
        """End every sequence with `error`, without the runner."""
        self._drop_all("error", error)

    def take_outputs(self) -> tuple[list[Delivery], list[str]]:
        """What was made since the last call, and the ids of the sequences that ended."""
        return self._outbox.take()

    def step(self) -> None:
        """Run one step.

        Raises:
            EngineDead: The runner said so, or failed too often; nothing more can be run.
        """
        self._drop_expired()
        self.scheduler.start_step()
        if self.speculator is not None:
            self._speculate(self.speculator)
        while (scheduled := self.scheduler.schedule()) is not None:
            if scheduled.batch.phase == "decode":
                self._decode(scheduled)
            else:
                self._prefill(scheduled)
        self.num_steps += 1

    def _announce(self, sequence: Sequence, began_s: float) -> None:
        """Say that work on a sequence began, without waiting for the end of the step."""
        self._outbox.add(sequence, EngineOutput((), started_s=began_s))
        self.on_urgent()

    def _decode(self, scheduled: Scheduled) -> None:
        """Make the next id of every row, and take how long that lasts, sampling included."""
        began_s = self._clock.monotonic()
        if self._run(scheduled.batch, scheduled.rows):
            duration_s = self._clock.monotonic() - began_s
            self.scheduler.budget.note_decode(duration_s)
            if self.speculator is not None:
                self.speculator.note_decode(duration_s)

    def _prefill(self, scheduled: Scheduled) -> None:
        """Compute the next chunk of a prompt, behind what can be loaded, maybe beside a decode."""
        batch, (sequence,), decode = scheduled.batch, scheduled.rows, scheduled.decode
        began_s = self._clock.monotonic()
        if scheduled.begins:
            self._announce(sequence, began_s)
        self._move(scheduled.moves)
        num_tokens, decode_s = 0, 0.0
        if sequence.slot >= 0 and self._load_prefix(sequence, scheduled):
            slot, loaded_s = sequence.slot, self._clock.monotonic()
            if self._run(batch, scheduled.rows) if decode is None else self._mix(scheduled, decode):
                num_tokens = batch.token_ids.size
                duration_s = self._clock.monotonic() - loaded_s
                if decode is not None:
                    decode_s = self.scheduler.budget.decode_share_s(num_tokens, duration_s)
                self.scheduler.budget.note_prefill(num_tokens, duration_s - decode_s)
                is_complete = sequence.num_computed_tokens >= sequence.num_prompt_tokens
                if is_complete and sequence.block_keys:
                    self.on_urgent()  # the first token does not wait for the store
                    # A row now, maybe elsewhere; or it ended, and its slot was not used again.
                    slot = sequence.slot if sequence.slot >= 0 else slot
                    self._prefixes.save(slot, sequence.block_keys)
        elif decode is not None:
            self._decode(Scheduled(decode, self.scheduler.rows))
        duration_s = self._clock.monotonic() - began_s - decode_s
        self.prefill_s += duration_s
        self.scheduler.note_time(num_tokens, duration_s)

    def _load_prefix(self, sequence: Sequence, scheduled: Scheduled) -> bool:
        """Load what is cached of a prompt that begins; `False` leaves it all to a later batch."""
        if not scheduled.begins:
            return True
        if self._prefixes.load(sequence.slot, sequence.block_keys, scheduled.cached_blocks):
            self.num_cached_prompt_tokens += sequence.num_cached_tokens
            self.num_settled_prompt_tokens += sequence.num_cached_tokens
            return True
        self.scheduler.forget_cached(sequence)
        return False

    def _run(self, batch: Batch, rows: list[Sequence]) -> bool:
        """Run one batch and say whether that worked.

        Whatever fails hurts only its rows, unless it fails for good.
        """
        try:
            logits = self._execution.run(batch, rows)
        except EngineDead:
            raise
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            self._fail(list(rows), error)
            return False
        return self._take(batch, rows, logits)

    def _mix(self, scheduled: Scheduled, decode: Batch) -> bool:
        """Run a prefill and the decode of all rows in one call; say whether the prefill worked."""
        batch, rows = scheduled.batch, self.scheduler.rows
        try:
            first, others = self._execution.run_mixed(batch, decode)
        except EngineDead:
            raise
        except Exception:  # noqa: BLE001 - a plugin may raise anything
            self._run(decode, rows)  # apart, what fails again hurts its own rows only
            return self._run(batch, scheduled.rows)
        self._take(decode, rows, others)
        return self._take(batch, scheduled.rows, first)

    def _take(self, batch: Batch, rows: list[Sequence], logits: StepLogits) -> bool:
        """Draw what follows from a batch and hand it out; say whether that worked."""
        try:
            sampled = self._draw(batch, rows, logits)
        except EngineDead:
            raise
        except Exception as error:  # noqa: BLE001 - logits of a plugin may be anything
            self._fail(list(rows), error)
            return False
        self._num_failures = 0
        if batch.phase == "prefill":
            self._note_prefilled(rows[0], batch.token_ids.shape[1])
            deadline_s = rows[0].request.deadline_s
            if deadline_s is not None and deadline_s <= self._clock.monotonic():
                # A first token that comes too late is no answer. Rows that decode expire between
                # steps: the prompt's slot was chosen behind all of them.
                self._expire([rows[0]])
                return True
        if sampled is not None:
            self._update(batch, rows, sampled)
        elif rows[0].num_computed_tokens == rows[0].num_prompt_tokens:
            self._end([rows[0]], "length")
        return True

    def _speculate(self, speculator: Speculator) -> None:
        """Verify a draft for each row in the place of the step's decode, if that is faster."""
        for sequence, draft in speculator.drafts():
            self.scheduler.skip_decode()
            if sequence.slot < 0:  # it was lost in a move
                continue
            try:
                token_ids, logprobs, reason = speculator.verify(sequence, draft)
            except EngineDead:
                raise
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                self._fail([sequence], error)
                continue
            self._num_failures = 0
            self._metadata = None
            if not token_ids:
                continue
            self.num_generated_tokens += len(token_ids)
            sequence.generated_ids += token_ids
            stop_id = token_ids[-1] if reason == "stop" else None
            output = EngineOutput(tuple(token_ids), reason, stop_id, tuple(logprobs))
            self._outbox.add(sequence, output)
            if reason is not None:
                self._forget(sequence)
                self._release([sequence])

    def _draw(self, batch: Batch, rows: list[Sequence], logits: StepLogits) -> Sampled | None:
        """Draw from what the model says; `None` for a prefill that draws nothing.

        It is not complete, or the prompt is all that was wanted.

        Raises:
            StepFailed: Not one row of logits is finite.
        """
        if not isinstance(logits, np.ndarray):
            sampled, self._metadata = logits.sample(), None
        elif batch.phase == "decode":
            if self._metadata is None:
                self._metadata = SamplingMetadata(rows, self._vocab_size)
            sampled = sample(logits, self._metadata)
        else:
            (sequence,) = rows
            if sequence.request.sampling.prompt_logprobs is not None:
                note_prompt_logprobs(sequence, logits)
            num_computed_tokens = sequence.num_computed_tokens + batch.token_ids.shape[1]
            if num_computed_tokens < sequence.num_prompt_tokens:
                return None
            logits = logits[-1:]
            if not sequence.max_new_tokens:
                check_finite(logits)
                return None
            sampled = sample(logits, SamplingMetadata(rows, self._vocab_size))
        if len(sampled.failed_rows) == len(rows):
            raise StepFailed("the model's logits are not finite")
        return sampled

    def _note_prefilled(self, sequence: Sequence, num_tokens: int) -> None:
        self.scheduler.prefilled(sequence, num_tokens)
        self.num_prompt_tokens += num_tokens
        self.num_settled_prompt_tokens += num_tokens

    def _update(self, batch: Batch, rows: list[Sequence], sampled: Sampled) -> None:
        """Hand out what the rows drew, and let go of those that ended."""
        num_drawn = len(rows) - len(sampled.failed_rows) - len(sampled.rejected_rows)
        self.num_generated_tokens += num_drawn
        if batch.phase == "decode":
            self.scheduler.advance(sampled.token_ids)
        finished = self._outbox.add_drawn(rows, sampled)
        for sequence in finished:
            self._forget(sequence)
        for row in sampled.failed_rows:
            self._prefixes.discard(rows[row].block_keys)
            self._emit_end(rows[row], "error", StepFailed("the model's logits are not finite"))
            finished.append(rows[row])
        for row, error in sampled.rejected_rows.items():
            self._emit_end(rows[row], "error", error)
            finished.append(rows[row])
        if batch.phase == "prefill" and not finished:
            self._move(self.scheduler.close_up(rows[0]))
            if rows[0].slot >= 0:
                self.scheduler.start_decoding(rows[0], int(sampled.token_ids[0]))
            self._metadata = None
        elif finished:
            self._release(finished)

    def _fail(self, sequences: list[Sequence], error: Exception) -> None:
        """End sequences for which the runner failed: their cached beginnings may be why."""
        self._count_failure(error)
        self._prefixes.discard([key for each in sequences for key in each.block_keys])
        self._end(sequences, "error", as_backend_error(error))

    def _count_failure(self, error: Exception) -> None:
        self._num_failures += 1
        if self._num_failures >= MAX_CONSECUTIVE_FAILURES:
            raise EngineDead(f"{self._num_failures} steps failed one after another") from error

    def _drop_expired(self) -> None:
        earliest = self._earliest_deadline_s
        if earliest is None or (now := self._clock.monotonic()) < earliest:
            return
        left = [
            (sequence, sequence.request.deadline_s)
            for sequence in self._sequences.values()
            if sequence.request.deadline_s is not None
        ]
        self._earliest_deadline_s = min((d for _, d in left if d > now), default=None)
        self._expire([sequence for sequence, deadline_s in left if deadline_s <= now])

    def _expire(self, sequences: list[Sequence]) -> None:
        error = DeadlineExceeded("the request's deadline passed before it ended")
        self._end(sequences, "error", error)

    def _end(
        self, sequences: list[Sequence], reason: FinishReason, error: Exception | None = None
    ) -> None:
        running = []
        for sequence in sequences:
            self._emit_end(sequence, reason, error)
            if not self.scheduler.waiting.discard(sequence):
                running.append(sequence)
        if running:
            self._release(running)

    def _drop_all(self, reason: FinishReason, error: Exception | None) -> None:
        for sequence in list(self._sequences.values()):
            self._emit_end(sequence, reason, error)
            if not self.scheduler.waiting.discard(sequence):
                self.scheduler.release([sequence])
        self._metadata = None
        self._execution.forget()

    def _emit_end(self, sequence: Sequence, reason: FinishReason, error: Exception | None) -> None:
        self._outbox.end(sequence, reason, error)
        self._forget(sequence)

    def _forget(self, sequence: Sequence) -> None:
        del self._sequences[sequence.request.request_id]
        num_left = sequence.num_prompt_tokens - sequence.num_computed_tokens
        self.num_settled_prompt_tokens += num_left

    def _release(self, sequences: Iterable[Sequence]) -> None:
        """Free slots, and let the runner close the holes."""
        self._metadata = None
        self._execution.forget()
        self._move(self.scheduler.release(sequences))

    def _move(self, moves: Iterable[Move]) -> None:
        """Let the runner move slots; a sequence that it cannot move is lost."""
        lost: list[Sequence] = []
        for sequence, source, target, num_tokens in moves:
            try:
                self.runner.move_slot(source, target, num_tokens)
            except EngineDead:
                raise
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                self._count_failure(error)
                self._emit_end(sequence, "error", as_backend_error(error))
                sequence.block_keys = []  # nobody knows what its slot holds
                lost.append(sequence)
        if lost:
            self._release(lost)

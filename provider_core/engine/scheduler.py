"""The scheduler: which sequences run, in which slots, and what the next batch is.

A step is at most one decode batch over all running rows, then prefill batches of one row each
until the step's budget of prompt tokens is spent. Where the runner mixes phases, a step that
decodes is a single call, with one prefill batch beside the decode. The budget is what keeps the
running rows' inter-token latency (`step_budget`); keys are served evenly (`waiting_queue`), and
none holds all slots where others are about (`slot_shares`).

A long prompt is cut at the budget and goes on in the next step. It does not hold up who came
after it: the first in line is sure of half the budget, or of every other step where a step takes
one prompt, and the other half is the shortest prompt's, if that is much shorter. So several prompts
may be half computed at a time.
"""

from collections.abc import Callable, Container, Iterable
from collections.abc import Sequence as Seq
from time import monotonic

import numpy as np

from provider_core.engine.kv_cache import SlotPool, plan_moves
from provider_core.engine.prefix_cache import PrefixCache
from provider_core.engine.scheduled import Move, Scheduled, can_be_mixed, move, prefill_batch
from provider_core.engine.sequence import Sequence
from provider_core.engine.slot_shares import SlotShares
from provider_core.engine.step_budget import StepBudget
from provider_core.engine.waiting_queue import GENERATED_TOKEN_WEIGHT, WaitingQueue
from provider_core.interfaces import Batch

MAX_PREFILLING = 4
"""Prompts that may be half computed at a time: each holds a slot that makes no tokens yet."""

MIN_CHUNK = 3
"""With so many tokens left to give, a prompt can be cut without leaving a single one."""

_OVERTAKES = 2  # how many times shorter than the rest of the first in line a prompt must be
_MAX_PROMPT_LOGITS = 2**24  # logits in one chunk whose every position is wanted: 64 MiB


class Scheduler:
    """Decides each step's batches and keeps the decode rows dense. Calls no runner.

    The arrays of a decode batch belong to the scheduler and change in place after the step.

    Args:
        max_num_seqs: Slots.
        vocab_size: Width of the logits.
        budget: How many prompt tokens a step may compute, at least `MIN_CHUNK`.
        max_kv_tokens: Tokens that running sequences may reserve together.
        prefix_cache: Of the runner's block store, if it has one.
        mixes: The runner takes a prefill beside a decode.
        now_s: A clock that only grows.
    """

    def __init__(
        self,
        *,
        max_num_seqs: int,
        vocab_size: int,
        budget: StepBudget,
        max_kv_tokens: int,
        prefix_cache: PrefixCache | None = None,
        mixes: bool = False,
        now_s: Callable[[], float] = monotonic,
    ) -> None:
        self.waiting = WaitingQueue()
        self.rows: list[Sequence] = []  # decoding; the index is the slot
        self.prefilling: list[Sequence] = []  # first come first; those begun behind the rows
        self.budget = budget
        self.prefix_cache = prefix_cache
        self._mixes = mixes
        self._pool = SlotPool(num_slots=max_num_seqs, max_kv_tokens=max_kv_tokens)
        self._shares = SlotShares(max_num_seqs, now_s)
        self._logits_chunk = max(MIN_CHUNK, _MAX_PROMPT_LOGITS // vocab_size)
        self._num_left = 0  # prompt tokens this step may still compute
        self._num_promised = 0  # of them, those that only the first in line may have
        self._was_overtaken = False  # the first in line, in the last step that computed a prompt
        self._is_decode_due = False
        self._slots = np.arange(max_num_seqs, dtype=np.int32)
        self._token_ids = np.zeros((max_num_seqs, 1), dtype=np.int64)
        self._positions = np.zeros(max_num_seqs, dtype=np.int32)

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.rows or self.prefilling or len(self.waiting))

    @property
    def has_prompts(self) -> bool:
        """Whether a prompt is to be computed, now or when there is room for it."""
        return bool(self.prefilling or len(self.waiting))

    @property
    def num_running(self) -> int:
        """Sequences that hold a slot."""
        return self._pool.num_used

    @property
    def num_kv_tokens(self) -> int:
        """Tokens stored in slots; a snapshot that may mix two steps when read by another thread."""
        stored = int(self._positions[: len(self.rows)].sum())
        return stored + sum(sequence.num_computed_tokens for sequence in self.prefilling)

    def running(self) -> list[Sequence]:
        """Every sequence that holds a slot."""
        return self.rows + self.prefilling

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn."""
        cache, request = self.prefix_cache, sequence.request
        if cache is not None:
            sequence.block_keys = cache.keys(request.prompt_token_ids, request.cache_salt)
            num_cached = cache.count(_usable_keys(sequence, cache))
            sequence.num_expected_tokens = num_cached * cache.block_size
        self._shares.ask(request.fairness_key)
        self.waiting.append(sequence)

    def start_step(self) -> None:
        """Begin a step: one decode is due if rows run, and the prefill budget is whole."""
        self._is_decode_due = bool(self.rows)
        self._num_left = self.budget.num_tokens(is_decoding=self._is_decode_due)
        self._num_promised = max(self._num_left // 2, MIN_CHUNK)
        if self._mixes and self._is_decode_due:
            self._num_promised = self._num_left if self._was_overtaken else 0
        if len(self.waiting):
            for sequence in self.rows:
                self._charge_generated(sequence)

    def schedule(self) -> Scheduled | None:
        """The next batch of this step, or `None` when the step is over.

        After a decode batch call `advance`; after a prefill batch `prefilled`, when that was the
        last of the prompt `start_decoding`, and `note_time`; for those that end instead, `release`.
        A prompt whose stored blocks cannot be loaded is left alone, after `forget_cached`.
        """
        if self._is_decode_due:
            self._is_decode_due = False
            n = len(self.rows)
            batch = Batch("decode", self._slots[:n], self._token_ids[:n], self._positions[:n], 1)
            return (self._schedule_prompt(batch) if self._mixes else None) or Scheduled(
                batch, self.rows
            )
        return self._schedule_prompt()

    def _schedule_prompt(self, decode: Batch | None = None) -> Scheduled | None:
        """The next chunk of a prompt, if there is one; beside a decode none of it is left after.

        Args:
            decode: To run in the same call, which gives no logits but of a prompt's last token.
        """
        chosen = self._choose() if self.has_prompts else None
        if chosen is None:
            return None
        sequence, num_granted = chosen
        if decode is not None and not can_be_mixed(sequence):
            return None
        begins = sequence.slot < 0
        cached_blocks = self._find_cached(sequence) if begins else ()
        num_tokens = self._chunk_size(sequence, num_granted)
        moves = self._place(sequence, completes=num_tokens == sequence.num_missing_tokens)
        batch = prefill_batch(sequence, num_tokens)
        if decode is not None:
            self._num_left = 0
        return Scheduled(batch, [sequence], moves, cached_blocks, begins, decode)

    def advance(self, token_ids: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        """Take the ids that the decode batch's rows drew, `[n]`: they are fed next."""
        n = len(token_ids)
        self._token_ids[:n, 0] = token_ids
        self._positions[:n] += 1

    def verification(self, sequence: Sequence, draft: list[int]) -> Batch:
        """A batch of one row that is decoding: the id to be fed next, and a draft behind it."""
        slot = sequence.slot
        token_ids = np.array([[self._token_ids[slot, 0], *draft]], dtype=np.int64)
        row = slice(slot, slot + 1)
        return Batch("prefill", self._slots[row], token_ids, self._positions[row], 1 + len(draft))

    def verified(self, sequence: Sequence, token_ids: list[int]) -> None:
        """Take what one row drew instead of decoding, at least one id: the last is fed next."""
        self._token_ids[sequence.slot, 0] = token_ids[-1]
        self._positions[sequence.slot] += len(token_ids)

    def skip_decode(self) -> None:
        """Leave this step's decode out: its rows were verified."""
        self._is_decode_due = False

    def prefilled(self, sequence: Sequence, num_tokens: int) -> None:
        """Note that `num_tokens` more of the prompt are stored."""
        sequence.num_computed_tokens += num_tokens
        self._num_left -= num_tokens
        self.waiting.charge(sequence, num_tokens)

    def note_time(self, num_tokens: int, duration_s: float) -> None:
        """Let a prompt's turn use up as much of the step as its duration is worth.

        Args:
            num_tokens: What `prefilled` has taken off already.
            duration_s: Of moves, loading, computing and storing.
        """
        self._num_left -= max(0, self.budget.worth(duration_s) - num_tokens)

    def forget_cached(self, sequence: Sequence) -> None:
        """Compute a prompt from its start, in the slot it has: its stored blocks are lost."""
        sequence.num_computed_tokens = sequence.num_cached_tokens = 0

    def close_up(self, sequence: Sequence) -> list[Move]:
        """Put a complete prompt behind the rows, which may have become fewer since it was placed.

        Returns:
            The moves the runner must make, in order.
        """
        return self._place(sequence, completes=True)

    def start_decoding(self, sequence: Sequence, token_id: int) -> None:
        """Turn the sequence whose prefill is complete into the last decode row.

        Raises:
            RuntimeError: Its slot is not the one behind the rows; a bug that would mix up texts.
        """
        if sequence.slot != len(self.rows):
            raise RuntimeError(f"slot {sequence.slot} cannot become row {len(self.rows)}")
        self.prefilling.remove(sequence)
        self._token_ids[sequence.slot, 0] = token_id
        self._positions[sequence.slot] = sequence.num_computed_tokens
        self.rows.append(sequence)
        if len(self.rows) == 1:  # from here on somebody waits for the next token
            self._num_left = min(self._num_left, self.budget.num_tokens(is_decoding=True))

    def release(self, sequences: Iterable[Sequence]) -> list[Move]:
        """Free the slots of ended sequences and close the holes between the decode rows.

        Returns:
            The moves the runner must make, in order. The scheduler counts them as made.
        """
        freed = []
        for sequence in sequences:
            self._pool.give_back(sequence.num_reserved_tokens)
            self._shares.give_back(sequence.request.fairness_key)
            self._charge_generated(sequence)
            if sequence in self.prefilling:
                self.prefilling.remove(sequence)
            else:
                freed.append(sequence.slot)
            sequence.slot = -1
        rows = self.rows
        moves = []
        for source, target in plan_moves(len(rows), freed):
            rows[target] = rows[source]
            self._token_ids[target] = self._token_ids[source]
            self._positions[target] = self._positions[source]
            moves.append(move(rows[target], target, int(self._positions[target])))
        del rows[len(rows) - len(freed) :]
        if not self.has_work:
            self.waiting.forget()
        return moves

    def _choose(self) -> tuple[Sequence, int] | None:
        """Whose prompt goes on, and by how many tokens at most."""
        if self._num_left < MIN_CHUNK:
            return None
        first = self._first_in_line()
        if first is None:
            return None
        num_spare = self._num_left - self._num_promised
        if num_spare >= MIN_CHUNK and first.num_missing_tokens > self._num_left:
            shorter = self._find_shorter(first, num_spare)
            if shorter is not None:
                self._was_overtaken = True
                return shorter, num_spare
        self._num_promised = 0
        self._was_overtaken = False
        return first, self._num_left

    def _first_in_line(self) -> Sequence | None:
        """The oldest of the half computed prompts, or who is next of those that wait."""
        if not self.prefilling:
            barred = self._barred(overtakes=False)
            return self._admit(self.waiting.first(large=self._shares.large, barred=barred))
        if self._is_full:
            # A prompt that completes must be behind the rows, and no slot is free to clear that
            # one: whoever holds it goes first.
            return self._holder(len(self.rows))
        return self.prefilling[0]

    def _find_shorter(self, first: Sequence, num_spare: int) -> Sequence | None:
        """The shortest prompt that may overtake the first in line, admitted."""
        if self._is_full:
            return None
        limit = first.num_missing_tokens // _OVERTAKES
        begun = min(self.prefilling[1:], key=lambda each: each.num_missing_tokens, default=None)
        if begun is not None and begun.num_missing_tokens <= limit:
            limit = begun.num_missing_tokens - 1
        else:
            begun = None
        barred = self._barred(overtakes=True)
        waiting = self.waiting.shortest(limit, large=self._shares.large, barred=barred)
        if waiting is not None and (
            len(self.prefilling) < MAX_PREFILLING or waiting.num_missing_tokens <= num_spare
        ):
            return self._admit(waiting) or begun
        return begun

    def _barred(self, *, overtakes: bool) -> Container[str]:
        """Keys that may not enter: those with a slot, if the last is kept for one that has none.

        Between keys that wait their order decides, but who overtakes leaves the slot to them too.
        """
        if self._pool.num_used != self._pool.num_slots - 1:
            return ()
        absent = self._shares.absent()
        is_kept = any(overtakes or not self.waiting.has_key(key) for key in absent)
        return self._shares.held if is_kept else ()

    def _admit(self, sequence: Sequence | None) -> Sequence | None:
        """Let a waiting sequence in if there is room for it; its slot is found when it runs."""
        if sequence is None or not self._pool.has_room(sequence.num_reserved_tokens):
            return None
        if self.prefilling:
            self.waiting.discard(sequence)
        else:
            self.waiting.take_turn(sequence)
        self._pool.take(sequence.num_reserved_tokens)
        self._shares.take(sequence.request.fairness_key)
        self.prefilling.append(sequence)
        return sequence

    def _find_cached(self, sequence: Sequence) -> Seq[int]:
        """The stored blocks a prompt begins with: what they hold counts as computed."""
        cache = self.prefix_cache
        if cache is None:
            return ()
        block_ids = cache.find(_usable_keys(sequence, cache))
        num_cached = len(block_ids) * cache.block_size
        sequence.num_computed_tokens = sequence.num_cached_tokens = num_cached
        sequence.num_expected_tokens = 0
        return block_ids

    def _place(self, sequence: Sequence, *, completes: bool) -> list[Move]:
        """Find a slot for the next chunk; a prompt that it completes must be behind the rows."""
        last = len(self.rows)
        if sequence.slot == last or (sequence.slot >= 0 and not completes):
            return []
        moves = []
        holder = self._holder(last)
        if holder is not None and completes:
            moves.append(move(holder, self._highest_free_slot(), holder.num_computed_tokens))
            holder = None
        target = last if holder is None else self._highest_free_slot()
        if sequence.slot < 0:
            sequence.slot = target
        else:
            moves.append(move(sequence, target, sequence.num_computed_tokens))
        return moves

    @property
    def _is_full(self) -> bool:
        """Whether every slot holds something; who was let in and has not begun holds none."""
        num_begun = sum(sequence.slot >= 0 for sequence in self.prefilling)
        return len(self.rows) + num_begun == self._pool.num_slots

    def _holder(self, slot: int) -> Sequence | None:
        """The half computed prompt in a slot, if there is one."""
        return next((sequence for sequence in self.prefilling if sequence.slot == slot), None)

    def _highest_free_slot(self) -> int:
        """Far from the decode rows, which grow towards it. There must be a free one."""
        taken = {sequence.slot for sequence in self.prefilling}
        return next(i for i in reversed(range(self._pool.num_slots)) if i not in taken)

    def _chunk_size(self, sequence: Sequence, num_tokens: int) -> int:
        """How many of at least `MIN_CHUNK` tokens to compute: neither chunk nor rest is just one.

        A single token behind a past goes through other kernels than several do, with other
        rounding; where a prompt is cut must not change the text.
        """
        if sequence.request.sampling.prompt_logprobs is not None:
            num_tokens = min(num_tokens, self._logits_chunk)
        missing = sequence.num_missing_tokens
        return num_tokens - 1 if missing == num_tokens + 1 else min(missing, num_tokens)

    def _charge_generated(self, sequence: Sequence) -> None:
        """Count what a sequence has generated since it was last counted."""
        num_new = sequence.num_generated_tokens - sequence.num_charged_tokens
        sequence.num_charged_tokens = sequence.num_generated_tokens
        self.waiting.charge(sequence, GENERATED_TOKEN_WEIGHT * num_new)


def _usable_keys(sequence: Sequence, cache: PrefixCache) -> list[bytes]:
    """Of the blocks that may come from the cache: at least two tokens are left, a whole chunk.

    Logits of the prompt are not stored, so who wants them gets nothing.
    """
    if sequence.request.sampling.prompt_logprobs is not None:
        return []
    return sequence.block_keys[: max(0, sequence.num_prompt_tokens - 2) // cache.block_size]

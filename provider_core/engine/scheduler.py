"""The scheduler: which sequences run, in which slots, and what the next batch is.

A step is at most one decode batch over all running rows, then prefill batches of one row each
until the step's budget of prompt tokens is spent. A long prompt is cut at the budget and goes on
in the next step, so that it delays running sequences by one chunk at most; several short prompts
share a step.
"""

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from provider_core.engine.kv_cache import SlotPool, plan_moves
from provider_core.engine.sequence import Sequence
from provider_core.interfaces import Batch

_MAX_PROMPT_LOGITS = 2**24  # logits in one chunk whose every position is wanted: 64 MiB


class WaitingQueue:
    """First come, first served within a fairness key; the keys take turns."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[str, dict[str, Sequence]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, sequence: Sequence) -> None:
        """Add at the end of its key's line."""
        request = sequence.request
        self._by_key.setdefault(request.fairness_key, {})[request.request_id] = sequence
        self._length += 1

    def peek(self) -> Sequence | None:
        """The next one, or `None`."""
        for sequences in self._by_key.values():
            return next(iter(sequences.values()))
        return None

    def pop(self) -> Sequence:
        """Take what `peek` shows; its key goes to the end of the round."""
        key, sequences = self._by_key.popitem(last=False)
        sequence = sequences.pop(next(iter(sequences)))
        self._length -= 1
        if sequences:
            self._by_key[key] = sequences
        return sequence

    def discard(self, sequence: Sequence) -> bool:
        """Take one out of turn; say whether it was here."""
        request = sequence.request
        sequences = self._by_key.get(request.fairness_key, {})
        if sequences.pop(request.request_id, None) is None:
            return False
        self._length -= 1
        if not sequences:
            del self._by_key[request.fairness_key]
        return True


class Scheduler:
    """Decides each step's batches and keeps the decode rows dense. Calls no runner.

    The arrays of a decode batch belong to the scheduler and change in place after the step.

    Args:
        max_num_seqs: Slots.
        vocab_size: Width of the logits.
        prefill_chunk_tokens: Most prompt tokens in one step.
        max_kv_tokens: Tokens that running sequences may reserve together.
    """

    def __init__(
        self, *, max_num_seqs: int, vocab_size: int, prefill_chunk_tokens: int, max_kv_tokens: int
    ) -> None:
        self.waiting = WaitingQueue()
        self.rows: list[Sequence] = []  # decoding; the index is the slot
        self.prefilling: Sequence | None = None  # in slot len(rows)
        self._pool = SlotPool(num_slots=max_num_seqs, max_kv_tokens=max_kv_tokens)
        self._chunk = prefill_chunk_tokens
        self._logits_chunk = max(1, _MAX_PROMPT_LOGITS // vocab_size)
        self._budget = 0  # prompt tokens this step may still compute
        self._is_decode_due = False
        self._slots = np.arange(max_num_seqs, dtype=np.int32)
        self._token_ids = np.zeros((max_num_seqs, 1), dtype=np.int64)
        self._positions = np.zeros(max_num_seqs, dtype=np.int32)

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.rows or self.prefilling is not None or len(self.waiting))

    @property
    def num_running(self) -> int:
        """Sequences that hold a slot."""
        return self._pool.num_used

    @property
    def num_kv_tokens(self) -> int:
        """Tokens stored in slots; a snapshot that may mix two steps when read by another thread."""
        prefilling = self.prefilling
        stored = int(self._positions[: len(self.rows)].sum())
        return stored + (prefilling.num_computed_tokens if prefilling is not None else 0)

    def running(self) -> list[Sequence]:
        """Every sequence that holds a slot."""
        return self.rows + ([self.prefilling] if self.prefilling is not None else [])

    def start_step(self) -> None:
        """Begin a step: one decode is due if rows run, and the prefill budget is whole."""
        self._budget = self._chunk
        self._is_decode_due = bool(self.rows)

    def schedule(self) -> tuple[Batch, list[Sequence]] | None:
        """The next batch of this step and its rows, or `None` when the step is over.

        After a decode batch call `advance`; after a prefill batch `prefilled`, and when that was
        the last of the prompt `start_decoding`; for those that end instead, `release`.
        """
        if self._is_decode_due:
            self._is_decode_due = False
            n = len(self.rows)
            batch = Batch("decode", self._slots[:n], self._token_ids[:n], self._positions[:n], 1)
            return batch, self.rows
        if self._budget <= 0:
            return None
        if self.prefilling is None:
            self.prefilling = self._admit()
        if self.prefilling is None:
            return None
        return self._prefill_batch(self.prefilling), [self.prefilling]

    def advance(self, token_ids: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        """Take the ids that the decode batch's rows drew, `[n]`: they are fed next."""
        n = len(token_ids)
        self._token_ids[:n, 0] = token_ids
        self._positions[:n] += 1

    def prefilled(self, sequence: Sequence, num_tokens: int) -> None:
        """Note that `num_tokens` more of the prompt are stored."""
        sequence.num_computed_tokens += num_tokens
        self._budget -= num_tokens

    def start_decoding(self, sequence: Sequence, token_id: int) -> None:
        """Turn the sequence whose prefill is complete into the last decode row."""
        self.prefilling = None
        self._token_ids[sequence.slot, 0] = token_id
        self._positions[sequence.slot] = sequence.num_computed_tokens
        self.rows.append(sequence)

    def release(self, sequences: Iterable[Sequence]) -> list[tuple[Sequence, int, int, int]]:
        """Free the slots of ended sequences and close the holes.

        Returns:
            The moves the runner must make, in order: sequence, source, target, tokens to move.
            The scheduler counts them as made.
        """
        freed = []
        for sequence in sequences:
            self._pool.give_back(sequence.num_reserved_tokens)
            if sequence is self.prefilling:
                self.prefilling = None
            else:
                freed.append(sequence.slot)
            sequence.slot = -1
        if not freed:
            return []
        rows = self.rows
        num_before = len(rows)
        moves = []
        for source, target in plan_moves(num_before, freed):
            rows[target] = rows[source]
            rows[target].slot = target
            self._token_ids[target] = self._token_ids[source]
            self._positions[target] = self._positions[source]
            moves.append((rows[target], source, target, int(self._positions[target])))
        del rows[num_before - len(freed) :]
        if self.prefilling is not None:
            self.prefilling.slot = len(rows)
            num_tokens = self.prefilling.num_computed_tokens
            moves.append((self.prefilling, num_before, len(rows), num_tokens))
        return moves

    def _admit(self) -> Sequence | None:
        sequence = self.waiting.peek()
        if sequence is None or not self._pool.has_room(sequence.num_reserved_tokens):
            return None
        self.waiting.pop()
        self._pool.take(sequence.num_reserved_tokens)
        sequence.slot = len(self.rows)
        return sequence

    def _prefill_batch(self, sequence: Sequence) -> Batch:
        start = sequence.num_computed_tokens
        wants_all = sequence.request.sampling.prompt_logprobs is not None
        size = min(self._budget, sequence.num_prompt_tokens - start)
        if wants_all:
            size = min(size, self._logits_chunk)
        token_ids = np.array(
            [sequence.request.prompt_token_ids[start : start + size]], dtype=np.int64
        )
        is_last = start + size == sequence.num_prompt_tokens
        return Batch(
            "prefill",
            np.array([sequence.slot], dtype=np.int32),
            token_ids,
            np.array([start], dtype=np.int32),
            size if wants_all else int(is_last),
        )

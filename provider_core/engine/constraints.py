"""Constrained decoding: a sequence's grammar says which ids may come next, and the others cannot.

What may come next is known as soon as an id is drawn, and needed only after the model has run
again. In between a thread of its own asks the grammars, so that no row waits for another's.

Whatever goes wrong in a grammar ends its own sequence, and none beside it; so does a grammar that
takes so long that the sequences beside it would feel it.
"""

from math import isfinite
from queue import SimpleQueue
from threading import Lock, Thread
from time import thread_time
from weakref import finalize

import numpy as np
import numpy.typing as npt

from provider_core.errors import BackendError
from provider_core.types import Grammar, GrammarMatcher

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int64]

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1, bitorder="little")
_CEILINGS = np.where(_BITS == 1, np.inf, -np.inf).astype(np.float32)  # by byte of a bitmask

MAX_LISTED_WORDS = 256
"""Words of a bitmask up to which its ids are listed; with more it takes less to look at all ids."""

MAX_TRIED = 4
"""Likeliest ids that are tried before all that are forbidden are ruled out."""

ALLOWANCE_S = 0.25
"""Processor time that a sequence's grammar may take beyond `ALLOWANCE_PER_TOKEN_S`."""

ALLOWANCE_PER_TOKEN_S = 0.003
"""For each token. Most masks take a hundredth of that; those of some grammars grow all the time."""


class ConstrainedSequence:
    """One sequence's place in its grammar. Belongs to the engine's thread, but for `fill`.

    Args:
        grammar: What it follows.
        masks: Makes its masks.

    Attributes:
        error: Why it cannot go on, once that is so.
    """

    def __init__(self, grammar: Grammar, masks: "MaskWorker") -> None:
        self.error: BackendError | None = None
        self.masks = masks
        self.ready = Lock()  # held until `fill` is done
        self._grammar = grammar
        self._matcher: GrammarMatcher | None = None  # none before the first `fill`
        self._left_s = ALLOWANCE_S  # of processor time
        self._bitmask = np.zeros(-(-masks.vocab_size // 32), dtype=np.int32)

    def fill(self) -> None:
        """Ask the grammar what may come next. On the worker's thread, between two draws."""
        began_s = thread_time()
        try:
            if self._matcher is None:
                self._matcher = self._grammar.start()
            self._matcher.fill_bitmask(self._bitmask)
            self._charge(began_s)
        except BaseException as error:  # noqa: BLE001 - a panic of Rust is no `Exception`
            self._fail("failed", error)
            return
        self._bitmask[-1] &= self.masks.last_word
        if not self._bitmask.any():
            self._fail("allows no token")

    def ready_bitmask(self) -> npt.NDArray[np.int32] | None:
        """What may come next, a bit for each id, if it is known by now and the grammar is well."""
        return None if self.ready.locked() or self.error is not None else self._bitmask

    def find_allowed(self, token_ids: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Which of these ids may come next, `[k]`; all, if the grammar failed."""
        if not self._is_ready():
            return np.ones(len(token_ids), dtype=np.bool_)
        bits = self._bitmask[token_ids // 32] >> token_ids % 32 & 1
        return bits.astype(np.bool_)

    def restrict(self, logits: _Floats) -> None:
        """Make what may not come next impossible.

        Args:
            logits: float32 `[vocab_size]`, changed in place; untouched if the grammar failed.
        """
        if self._is_ready():
            np.minimum(logits, self.masks.expand(self._bitmask), out=logits)

    def choose(self, logits: _Floats, likeliest: int, peak: float) -> tuple[int, float]:
        """The likeliest of the ids that may come next, without looking at the others twice.

        Args:
            logits: float32 `[vocab_size]`; changed in place at times.
            likeliest: Of all ids; mostly the answer.
            peak: Its logit.

        Returns:
            The id and its logit; the arguments, if the grammar or the model failed.
        """
        if not self._is_ready() or not isfinite(peak):
            return likeliest, peak
        if self._allows(likeliest):
            return likeliest, peak
        words = np.flatnonzero(self._bitmask)
        if len(words) <= MAX_LISTED_WORDS:
            allowed_ids = self._list(words)
            likeliest = int(allowed_ids[logits[allowed_ids].argmax()])
            return likeliest, float(logits[likeliest])
        for _ in range(MAX_TRIED):
            logits[likeliest] = -np.inf
            likeliest = int(logits.argmax())
            if self._allows(likeliest):
                break
        else:
            np.minimum(logits, self.masks.expand(self._bitmask), out=logits)
            likeliest = int(logits.argmax())
        return likeliest, float(logits[likeliest])

    def _allows(self, token_id: int) -> bool:
        return bool(self._bitmask[token_id // 32] >> token_id % 32 & 1)

    def _is_ready(self) -> bool:
        """Wait for the mask; `False` if there is none."""
        with self.ready:
            return self.error is None

    def _list(self, words: _Ints) -> _Ints:
        """The ids whose bits are set, given which words of the bitmask have any."""
        bits = np.unpackbits(self._bitmask[words].view(np.uint8), bitorder="little")
        places = np.flatnonzero(bits)
        ids: _Ints = 32 * words[places // 32] + places % 32
        return ids

    def advance(self, token_id: int, peak: float) -> bool:
        """Take what was drawn, and say whether the grammar is finished by it.

        Args:
            token_id: The id.
            peak: The highest logit there was; minus infinity if whatever the grammar allows was
                ruled out by something else.
        """
        if self.error is not None or self._matcher is None:
            return False
        if peak == -np.inf:
            self._fail("allows no token that the request allows")
        if not isfinite(peak):  # of NaN it is the model that is to blame
            return False
        began_s = thread_time()
        self._left_s = min(self._left_s + ALLOWANCE_PER_TOKEN_S, ALLOWANCE_S)
        try:
            if self._matcher.accept(token_id):
                self._charge(began_s)
                return self._matcher.is_finished
        except BaseException as error:  # noqa: BLE001 - a panic of Rust is no `Exception`
            self._fail("failed", error)
        else:
            self._fail("took back a token that it had allowed")
        return False

    def _charge(self, began_s: float) -> None:
        """Fail if the grammar took more processor time of this thread than it is allowed."""
        self._left_s -= thread_time() - began_s
        if self._left_s < 0:
            self._fail("takes too much time")

    def _fail(self, what: str, cause: BaseException | None = None) -> None:
        self.error = BackendError(f"the grammar of this request {what}")
        self.error.__cause__ = cause


_Batches = SimpleQueue[tuple[Lock, list[ConstrainedSequence]] | None]


class MaskWorker:
    """Makes the masks of all constrained sequences of an engine, on one thread.

    Args:
        vocab_size: Width of the logits.

    Attributes:
        last_word: The bits of a mask's last word that stand for ids.
    """

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.last_word = np.int32((1 << vocab_size % 32) - 1 if vocab_size % 32 else -1)
        self._batches: _Batches = SimpleQueue()
        self._thread: Thread | None = None  # none before it is needed
        self._end = finalize(self, self._batches.put, None)
        self._ceilings = np.empty((4 * -(-vocab_size // 32), 8), dtype=np.float32)

    def begin(self, grammar: Grammar) -> ConstrainedSequence:
        """Follow a sequence from its start."""
        sequence = ConstrainedSequence(grammar, self)
        self.prepare([sequence])
        return sequence

    def prepare(self, sequences: list[ConstrainedSequence]) -> None:
        """Let the masks of the next draw be made.

        A queue and a lock: an executor and its future would take 20 us more of each step.

        Raises:
            RuntimeError: It was closed.
        """
        if not self._end.alive:
            raise RuntimeError("masks of a closed worker")
        if self._thread is None:
            self._thread = Thread(target=_fill, args=(self._batches,), name="grammars", daemon=True)
            self._thread.start()
        ready = Lock()
        ready.acquire()
        for sequence in sequences:
            sequence.ready = ready
        self._batches.put((ready, sequences))

    def expand(self, bitmask: npt.NDArray[np.int32]) -> _Floats:
        """Infinity where a bit is set and its negative elsewhere, `[vocab_size]`.

        Valid until the next call. A look-up by byte and one `minimum` take half the time of an
        assignment by condition.
        """
        np.take(_CEILINGS, bitmask.view(np.uint8), axis=0, out=self._ceilings, mode="clip")
        return self._ceilings.reshape(-1)[: self.vocab_size]

    def close(self) -> None:
        """Let the thread end. Idempotent."""
        self._end()


Constrained = list[tuple[int, ConstrainedSequence]]
"""Rows of a batch and their places in their grammars."""


def advance_all(
    constrained: Constrained, token_ids: _Ints, peak: _Floats
) -> tuple[frozenset[int], dict[int, BackendError]]:
    """Take what the rows drew, and begin to make the masks of those that go on.

    Args:
        constrained: The rows.
        token_ids: int64 `[n]`, drawn by all rows of the batch.
        peak: float32 `[n]`, their highest logits when they drew.

    Returns:
        The rows whose grammars are finished, and those that failed with the reasons.
    """
    finished = set()
    rejected = {}
    going_on = []
    for row, sequence in constrained:
        if sequence.advance(int(token_ids[row]), float(peak[row])):
            finished.add(row)
        elif sequence.error is not None:
            rejected[row] = sequence.error
        else:
            going_on.append(sequence)
    if going_on:
        going_on[0].masks.prepare(going_on)
    return frozenset(finished), rejected


def _fill(batches: _Batches) -> None:
    """Make masks until the worker is closed, or nobody has it any more."""
    while (batch := batches.get()) is not None:
        ready, sequences = batch
        for sequence in sequences:
            sequence.fill()
        ready.release()
        del batch, sequences, sequence  # while it waits it keeps nobody's grammar

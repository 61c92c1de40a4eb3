"""Who comes next: fair between keys by the tokens each was served, in order within a key.

This is the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models"
(OSDI 2024): a key's counter grows with every token computed for it, the key with the least goes
first, and a key that comes back from idleness starts where the others are, not at nothing.

Where the others are moves on with all that is served, shared among the keys that ask for it, as
in weighted fair queueing. So an endless stream of keys that were never seen cannot hold up one
that was, and one that was served much while nobody else asked is not long held to it.

Tokens that are served say nothing of slots that are held: keys that hold many (`SlotShares`) are
given to `first` and `shortest`. They wait behind the others, as if they had been served more.
"""

from collections.abc import Callable, Container

from provider_core.engine.sequence import Sequence

GENERATED_TOKEN_WEIGHT = 2
"""A generated token counts as so many prompt tokens, as in the paper: it costs more to compute."""

OVERTAKING_TOKENS = 4096
"""A key may be served so much more than the one in turn by prompts that overtake.

Those that go before a key with many slots may be, too.
"""

_MAX_COUNTERS = 1024  # with more, those that no longer matter are dropped


class WaitingQueue:
    """Sequences that hold no slot yet."""

    def __init__(self) -> None:
        self._by_key: dict[str, dict[str, Sequence]] = {}
        self._length = 0
        self._served: dict[str, float] = {}  # by key, weighted tokens
        self._last_key = ""  # whose turn was last
        self._floor = 0.0  # where a key that was idle starts

    def __len__(self) -> int:
        return self._length

    def append(self, sequence: Sequence) -> None:
        """Add at the end of its key's line."""
        key = sequence.request.fairness_key
        if not self._length:
            self._floor = max(self._floor, self._served.get(self._last_key, 0))
        if key not in self._by_key:
            self._by_key[key] = {}
            served = max(self._served.get(key, 0), self._floor)
            self._served[key] = min(served, self._floor + OVERTAKING_TOKENS)
        self._by_key[key][sequence.request.request_id] = sequence
        self._length += 1

    def has_key(self, key: str) -> bool:
        """Whether a sequence of that key waits."""
        return key in self._by_key

    def first(self, *, large: Container[str] = (), barred: Container[str] = ()) -> Sequence | None:
        """The oldest of the key that was served least, or `None` if nobody waits.

        Args:
            large: Keys that others go before, if those were not served far more.
            barred: Keys that are left out.
        """
        rank = self._rank(large)
        key = min((key for key in self._by_key if key not in barred), key=rank, default=None)
        return None if key is None else next(iter(self._by_key[key].values()))

    def shortest(
        self, max_tokens: int, *, large: Container[str] = (), barred: Container[str] = ()
    ) -> Sequence | None:
        """The prompt with least to compute, up to that, of keys not served far too much.

        Args:
            max_tokens: Most that it may have to compute.
            large: Keys that overtake only whom nobody served less.
            barred: Keys that are left out.
        """
        if not self._length:
            return None
        rank = self._rank(large)
        limit = min(self._served[key] for key in self._by_key) + OVERTAKING_TOKENS
        found = None
        for key, sequences in self._by_key.items():
            if key in barred or rank(key) > limit:
                continue
            for sequence in sequences.values():
                if sequence.num_missing_tokens <= max_tokens:
                    found, max_tokens = sequence, sequence.num_missing_tokens - 1
        return found

    def discard(self, sequence: Sequence) -> bool:
        """Take one out; say whether it was here."""
        key = sequence.request.fairness_key
        sequences = self._by_key.get(key, {})
        if sequences.pop(sequence.request.request_id, None) is None:
            return False
        self._length -= 1
        if not sequences:
            del self._by_key[key]
        return True

    def take_turn(self, sequence: Sequence) -> None:
        """Take out what `first` shows; who was idle until now starts from its key's counter."""
        self._last_key = sequence.request.fairness_key
        self._floor = max(self._floor, self._served[self._last_key])
        self.discard(sequence)
        if len(self._served) > _MAX_COUNTERS:
            self._served = {
                key: served
                for key, served in self._served.items()
                if served > self._floor or key in self._by_key
            }

    def charge(self, sequence: Sequence, num_tokens: int) -> None:
        """Count weighted tokens that were computed for a sequence's key."""
        key = sequence.request.fairness_key
        self._served[key] = self._served.get(key, self._floor) + num_tokens
        self._floor += num_tokens / (1 + len(self._by_key))

    def _rank(self, large: Container[str]) -> Callable[[str], float]:
        """What keys are ordered by: served tokens, and some more if they hold many slots."""
        served = self._served
        return lambda key: served[key] + (OVERTAKING_TOKENS if key in large else 0)

    def forget(self) -> None:
        """Forget who was served how much: nothing waits and nothing runs."""
        self._served.clear()
        self._floor = 0.0

"""Who holds how many slots, so that no key's long answers lock another key out.

A running sequence is never thrown out, so what a key may hold is settled when one enters. A key
that is alone may fill every slot. Where others are about, `large` keys let them go first, and the
last free slot is kept for those that are `absent`: they asked lately, and hold none.
"""

from collections.abc import Callable, Collection

LATELY_S = 300.0
"""So long after it last asked or ran, a key may ask again and find a slot."""

_MAX_ABSENT = 1024  # with more, those that asked longest ago are dropped


class SlotShares:
    """Slots by key, and the keys that were here lately and hold none.

    Args:
        num_slots: Slots there are.
        now_s: A clock that only grows.
    """

    def __init__(self, num_slots: int, now_s: Callable[[], float]) -> None:
        self.held: dict[str, int] = {}  # slots by key, at least one each
        self.large: set[str] = set()  # keys that hold half of the slots or more
        self._half = max(1, num_slots // 2)
        self._now_s = now_s
        self._absent_since: dict[str, float] = {}  # oldest first

    def ask(self, key: str) -> None:
        """Note that a key wants a slot."""
        if key not in self.held:
            self._note_absent(key)

    def take(self, key: str) -> None:
        """Give a key one slot more."""
        self._absent_since.pop(key, None)
        self.held[key] = num_held = self.held.get(key, 0) + 1
        if num_held >= self._half:
            self.large.add(key)

    def give_back(self, key: str) -> None:
        """Undo one `take`."""
        self.held[key] -= 1
        if self.held[key] < self._half:
            self.large.discard(key)
        if not self.held[key]:
            del self.held[key]
            self._note_absent(key)

    def absent(self) -> Collection[str]:
        """Keys that hold no slot and asked or ran within `LATELY_S`."""
        oldest_s = self._now_s() - LATELY_S
        while self._absent_since:
            key, since_s = next(iter(self._absent_since.items()))
            if since_s >= oldest_s:
                break
            del self._absent_since[key]
        return self._absent_since.keys()

    def _note_absent(self, key: str) -> None:
        self._absent_since.pop(key, None)
        self._absent_since[key] = self._now_s()
        if len(self._absent_since) > _MAX_ABSENT:
            del self._absent_since[next(iter(self._absent_since))]

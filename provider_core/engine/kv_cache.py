"""Arithmetic over slots of the key-value cache. Numbers only; no tensor, no sequence.

Decode rows always hold slots 0 to d-1, so that a runner computes them as one contiguous view.
Sequences in the middle of their prefill hold slots behind them.
"""

from collections.abc import Collection


def plan_moves(num_rows: int, freed: Collection[int]) -> list[tuple[int, int]]:
    """Which decode rows move where so that those left hold the first slots again.

    Args:
        num_rows: Decode rows before, in slots 0 to num_rows-1.
        freed: Slots among them that became free.

    Returns:
        Pairs of source and target, safe to run in order; as few as possible.
    """
    gone = set(freed)
    num_left = num_rows - len(gone)
    holes = (slot for slot in range(num_left) if slot in gone)
    survivors = (slot for slot in range(num_rows - 1, num_left - 1, -1) if slot not in gone)
    return list(zip(survivors, holes, strict=True))


class SlotPool:
    """Counts slots and reserved tokens; a sequence enters when both have room for its worst case.

    Reserving the worst case (prompt and `max_tokens`) means that a running sequence never has to
    be thrown out for want of memory.

    Args:
        num_slots: Sequences that fit at once.
        max_kv_tokens: Tokens that all of them together may reserve.
    """

    def __init__(self, *, num_slots: int, max_kv_tokens: int) -> None:
        self.num_slots = num_slots
        self.max_kv_tokens = max_kv_tokens
        self.num_used = 0  # slots taken
        self.num_reserved_tokens = 0  # worst cases of those who took them

    def has_room(self, num_tokens: int) -> bool:
        """Whether a sequence whose worst case is `num_tokens` may enter now."""
        return (
            self.num_used < self.num_slots
            and self.num_reserved_tokens + num_tokens <= self.max_kv_tokens
        )

    def take(self, num_tokens: int) -> None:
        """Let a sequence in, after `has_room` said yes."""
        self.num_used += 1
        self.num_reserved_tokens += num_tokens

    def give_back(self, num_tokens: int) -> None:
        """Undo one `take` of the same number."""
        self.num_used -= 1
        self.num_reserved_tokens -= num_tokens

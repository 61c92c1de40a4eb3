"""Rows and slots that belong to no text: few shapes, free places, and no NaN from who was there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.slots import FailedTexts, SlotEnds, find_lost, round_rows
from provider_core.testing import decode_batch, prefill_batch


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_decode_has_room_for_its_rows_and_no_more_than_there_are_slots(
    num_rows: int, max_num_seqs: int
) -> None:
    """Whatever the numbers."""
    num_rows = min(num_rows, max_num_seqs)
    assert num_rows <= round_rows(num_rows, max_num_seqs) <= max_num_seqs


def test_decodes_have_few_shapes() -> None:
    """One, two, four, multiples of eight, and as many as there are slots."""
    assert {round_rows(n, 32) for n in range(1, 33)} == {1, 2, 4, 8, 16, 24, 32}
    assert [round_rows(n, 30) for n in (3, 5, 9, 25, 30)] == [4, 8, 16, 30, 30]


def test_what_comes_next_in_a_slot_is_free() -> None:
    """In a full one the last position: nobody can go on in it."""
    ends = SlotEnds(4, 8)
    assert ends.free_positions(0, 4).tolist() == [0, 0, 0, 0]
    ends.note(1, np.array([5, 8], np.int32))
    assert ends.free_positions(0, 4).tolist() == [0, 5, 7, 0]
    ends.note(1, [2])
    assert ends.free_positions(1, 3).tolist() == [2, 7]
    assert ends.free_positions(4, 4).tolist() == []


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_text_is_lost_if_all_its_logits_are_nan(dtype: str) -> None:
    """One id's NaN is that of its weights; infinity is no NaN."""
    nan, inf = np.nan, np.inf
    logits = np.array(
        [[1, 2, 3], [nan, nan, nan], [nan, 2, 3], [1, nan, nan], [inf, inf, inf], [nan, -inf, nan]],
        dtype,
    )
    assert find_lost(logits).tolist() == [False, True, False, False, False, False]
    assert find_lost(logits[:0]).tolist() == []


class Slots:
    """Remembers what was cleared."""

    def __init__(self) -> None:
        self.cleared: list[tuple[int, int]] = []
        self.failed = FailedTexts(lambda slot, num_tokens: self.cleared.append((slot, num_tokens)))

    def prefill(self, slot: int, num_tokens: int, *, is_lost: bool | None, start: int = 0) -> None:
        """Run a piece of a prompt; `None` is one without logits."""
        batch = prefill_batch(slot, [1] * num_tokens, num_computed_tokens=start)
        self.failed.note(batch, None if is_lost is None else np.array([is_lost]))

    def take_cleared(self) -> list[tuple[int, int]]:
        """Slots, and how many of their positions, since the last time."""
        cleared, self.cleared = self.cleared, []
        return cleared


def test_a_lost_text_is_cleared_at_once() -> None:
    """As far as it was written; its neighbours are left alone."""
    slots = Slots()
    slots.prefill(2, 7, is_lost=True)
    assert slots.take_cleared() == [(2, 7)]
    slots.failed.note(decode_batch([1, 1, 1], [4, 8, 6]), np.array([False, True, True]))
    assert slots.take_cleared() == [(1, 9), (2, 7)]
    for slot in range(3):
        slots.failed.begin(slot)
    assert slots.take_cleared() == []


def test_a_sound_text_is_never_cleared() -> None:
    """Whether its pieces had logits or not, as long as its end did."""
    slots = Slots()
    slots.prefill(0, 7, is_lost=None)
    slots.prefill(0, 3, start=7, is_lost=False)
    slots.failed.begin(0)
    assert slots.take_cleared() == []


def test_a_text_that_was_left_before_it_had_logits_is_cleared_for_the_next() -> None:
    """Nobody knows what it came to. The last piece says how far it was written."""
    slots = Slots()
    slots.prefill(1, 7, is_lost=None)
    slots.prefill(1, 3, start=7, is_lost=None)
    slots.failed.begin(0)
    assert slots.take_cleared() == []
    slots.failed.begin(1)
    assert slots.take_cleared() == [(1, 10)]
    slots.failed.begin(1)
    assert slots.take_cleared() == []


def test_a_move_clears_the_target_and_takes_the_doubt_along() -> None:
    """What is not known of the source is not known of its copy, either."""
    slots = Slots()
    slots.prefill(0, 5, is_lost=None)
    slots.prefill(1, 7, is_lost=None)
    slots.failed.move(1, 0)
    assert slots.take_cleared() == [(0, 5)]
    slots.failed.begin(0)
    slots.failed.begin(1)
    assert slots.take_cleared() == [(0, 7), (1, 7)]


def test_a_move_of_a_sound_text_leaves_no_doubt() -> None:
    """The target is cleared once, before it."""
    slots = Slots()
    slots.prefill(0, 5, is_lost=None)
    slots.prefill(1, 7, is_lost=False)
    slots.failed.move(1, 0)
    assert slots.take_cleared() == [(0, 5)]
    slots.failed.begin(0)
    assert slots.take_cleared() == []

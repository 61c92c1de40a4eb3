"""Slot arithmetic."""

from hypothesis import given
from hypothesis import strategies as st

from provider_core.engine.kv_cache import SlotPool, plan_moves


def test_freeing_the_last_row_moves_nothing() -> None:
    """The rows before it are dense already."""
    assert plan_moves(4, [3]) == []


def test_freeing_a_middle_row_moves_the_last_one_into_the_hole() -> None:
    """One move, whatever the number of rows."""
    assert plan_moves(5, [1]) == [(4, 1)]


def test_a_last_row_that_is_freed_itself_does_not_move() -> None:
    """Row 4 ended too, so row 3 fills the hole."""
    assert plan_moves(5, [1, 4]) == [(3, 1)]


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_moves_leave_the_survivors_dense(case: tuple[int, set[int]]) -> None:
    """Every survivor ends in the first slots, once, and no move reads or hits a wrong one."""
    num_rows, freed = case
    slots: list[int | None] = [None if i in freed else i for i in range(num_rows)]
    for source, target in plan_moves(num_rows, freed):
        assert slots[source] is not None
        assert slots[target] is None
        slots[target], slots[source] = slots[source], None
    num_left = num_rows - len(freed)
    assert {i for i in range(num_rows) if i not in freed} == set(slots[:num_left])
    assert all(row is None for row in slots[num_left:])


def test_room_needs_a_slot_and_tokens() -> None:
    """Either limit alone refuses; what was given back can be taken again."""
    pool = SlotPool(num_slots=2, max_kv_tokens=100)
    pool.take(60)
    assert pool.has_room(40)
    assert not pool.has_room(41)
    pool.take(40)
    assert not pool.has_room(0)
    pool.give_back(60)
    assert pool.has_room(60)

"""How long a draft is, and when none is worth it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.engine.drafting import MAX_DRAFT, Draft, Drafter, best_length

TEXT = (*range(40), 0, 1, 2)


def _draft(drafter: Drafter, *, cost: float = 0.1, most: int = 100) -> Draft:
    draft = drafter.draft([], cost_per_token=cost, most=most)
    assert draft is not None
    return draft


@given(st.floats(0, 1), st.floats(0.01, 1), st.integers(1, 15))
def test_the_length_is_the_best_of_all(chance: float, cost: float, most: int) -> None:
    """Against trying each."""

    def rate(length: int) -> float:
        return sum(chance**i for i in range(length + 1)) / (1 + cost * length)

    length, expected = best_length(chance, cost, most)
    assert 1 <= length <= most
    assert expected == pytest.approx(sum(chance**i for i in range(length + 1)))
    assert rate(length) >= max(map(rate, range(1, most + 1))) - 1e-9


def test_drafts_grow_with_success_to_the_longest() -> None:
    """From a careful start."""
    drafter = Drafter(TEXT)
    first = len(_draft(drafter).token_ids)
    for _ in range(10):
        draft = _draft(drafter)
        drafter.note(draft, len(draft.token_ids))
    assert first < len(_draft(drafter).token_ids) == MAX_DRAFT


def test_drafts_that_fail_stop_being_worth_it_and_are_tried_again_later() -> None:
    """A call then brings fewer tokens than its cost, until enough time has passed."""
    drafter = Drafter(TEXT)
    for _ in range(30):
        drafter.note(_draft(drafter), 0)
    draft = _draft(drafter)
    assert len(draft.token_ids) == 1
    assert draft.num_expected < draft.cost
    for _ in range(300):
        drafter.relax(draft)
    draft = _draft(drafter)
    assert draft.num_expected > draft.cost


def test_short_and_long_grams_are_judged_apart() -> None:
    """What followed two ids says little about what follows three."""
    drafter = Drafter((1, 2, 3, 4, 9, 2, 3))
    pair = _draft(drafter)
    assert (pair.gram_size, pair.token_ids[0]) == (2, 4)
    for _ in range(30):
        drafter.note(pair, 0)
    assert len(_draft(drafter).token_ids) == 1
    longer = drafter.draft([4, 9, 2, 3], cost_per_token=0.1, most=100)
    assert longer is not None
    assert longer.gram_size == 3
    assert len(longer.token_ids) > 1


def test_a_draft_is_never_longer_than_asked() -> None:
    """The sequence may end before it."""
    assert len(_draft(Drafter(TEXT), most=2).token_ids) == 2
    assert len(_draft(Drafter(TEXT), cost=0.01).token_ids) <= MAX_DRAFT


def test_generated_ids_are_part_of_the_text() -> None:
    """Those the last call did not have are indexed at the next, however many."""
    drafter = Drafter((1, 2, 3))
    assert drafter.draft([7, 8], cost_per_token=0.1, most=5) is None
    draft = drafter.draft([7, 8, 9, 1, 7, 8], cost_per_token=0.1, most=1)
    assert draft is not None
    assert draft.token_ids == [9]

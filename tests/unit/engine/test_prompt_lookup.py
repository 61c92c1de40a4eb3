"""The index of n-grams, against a search through the whole text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.engine.prompt_lookup import GRAM_SIZES, PromptLookup


def _search(token_ids: list[int]) -> tuple[int, int] | None:
    """The definition: the latest earlier place of the longest gram that has one."""
    for size in GRAM_SIZES:
        for position in range(len(token_ids) - 1, size - 1, -1):
            if token_ids[position - size : position] == token_ids[-size:]:
                return size, position
    return None


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(1, 7)))
def test_it_finds_what_a_search_finds(token_ids: list[int], pieces: list[int]) -> None:
    """However the text is cut into pieces that are added one after the other."""
    lookup = PromptLookup()
    for size in [*pieces, len(token_ids)]:
        done = len(lookup)
        lookup.extend(token_ids[done : done + size])
        assert lookup.find() == _search(token_ids[: len(lookup)])
    assert len(lookup) == len(token_ids)


def test_the_draft_is_what_followed() -> None:
    """From the position found, as far as wanted."""
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 1, 2])
    assert lookup.find() == (2, 2)
    assert lookup.draft(2, 3) == [3, 4, 5]


@pytest.mark.parametrize(
    ("token_ids", "expected"),
    [([5, 5, 5], [5] * 7), ([9, 1, 2, 1, 2], [1, 2, 1, 2, 1, 2, 1])],
)
def test_a_loop_goes_on(token_ids: list[int], expected: list[int]) -> None:
    """A draft that reaches the end of the text repeats the period."""
    lookup = PromptLookup(token_ids)
    found = lookup.find()
    assert found is not None
    assert lookup.draft(found[1], 7) == expected


def test_a_text_without_repetition_has_no_draft() -> None:
    """Nor has one that is too short."""
    assert PromptLookup([1, 2, 3, 4, 5]).find() is None
    assert PromptLookup([1]).find() is None
    assert PromptLookup().find() is None

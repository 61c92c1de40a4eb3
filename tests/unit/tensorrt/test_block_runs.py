"""Blocks that lie behind each other are copied in one call."""

import pytest

from provider_tensorrt.block_store import find_runs


@pytest.mark.parametrize(
    ("block_ids", "expected"),
    [
        ([], []),
        ([5], [(0, 5, 1)]),
        ([5, 6, 7], [(0, 5, 3)]),
        ([5, 6, 9, 2, 3], [(0, 5, 2), (2, 9, 1), (3, 2, 2)]),
        ([3, 2, 1], [(0, 3, 1), (1, 2, 1), (2, 1, 1)]),
    ],
)
def test_ids_are_cut_where_they_do_not_follow(
    block_ids: list[int], expected: list[tuple[int, int, int]]
) -> None:
    """Place in the list, first id, and how many."""
    assert list(find_runs(block_ids)) == expected

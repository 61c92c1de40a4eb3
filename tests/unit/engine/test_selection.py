"""The likeliest tokens without a sort of the vocabulary."""

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from provider_core.engine.selection import reached_by, sorted_candidates


def _scaled(seed: int, num_rows: int, vocab_size: int) -> npt.NDArray[np.float32]:
    """Rounded, so that many tokens are equal."""
    logits = np.random.default_rng(seed).normal(0, 2, (num_rows, vocab_size)).round(1)
    scaled: npt.NDArray[np.float32] = (logits - logits.max(axis=1, keepdims=True)).astype(
        np.float32
    )
    return scaled


@given(
    st.integers(0, 1000),
    st.integers(1, 3000),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_enough_tokens_reach_the_value(seed: int, vocab_size: int, shares: list[float]) -> None:
    """In each row at least as many as asked for, from 1 to all of them."""
    scaled = _scaled(seed, len(shares), vocab_size)
    num_tokens = np.array([1 + int(share * (vocab_size - 1)) for share in shares])
    reached = (scaled >= reached_by(scaled, num_tokens)[:, None]).sum(axis=1)
    assert (reached >= num_tokens).all()


def test_not_many_more_tokens_reach_the_value() -> None:
    """Else there would be much to sort: 40 of 100,000 leave fewer than 80."""
    scaled = np.random.default_rng(1).normal(0, 2, (20, 100_000)).astype(np.float32)
    reached = (scaled >= reached_by(scaled, np.full(20, 40))[:, None]).sum(axis=1)
    assert reached.max() < 80


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 500))
def test_candidates_are_in_the_order_of_a_stable_sort(
    seed: int, num_rows: int, vocab_size: int
) -> None:
    """Likeliest first, equal ones by id, each row with its own number."""
    scaled = _scaled(seed, num_rows, vocab_size)
    floor = np.linspace(-6, 0, num_rows).astype(np.float32)
    ids, values, counts = sorted_candidates(scaled, floor)
    for row in range(num_rows):
        order = np.argsort(-scaled[row], kind="stable")
        expected = order[scaled[row][order] >= floor[row]]
        assert counts[row] == len(expected)
        assert ids[row, : counts[row]].tolist() == expected.tolist()
        assert values[row, : counts[row]].tolist() == scaled[row][expected].tolist()
        assert (values[row, counts[row] :] == -np.inf).all()

"""Edits of single logits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.engine.penalties import LogitEdits, TokenCounts


def _column(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_counts_know_prompt_and_generated_ids() -> None:
    """Prompt ids are present with count 0 until they are generated."""
    counts = TokenCounts([5, 9, 5])
    counts.add(9)
    counts.add(2)
    counts.add(9)
    assert dict(zip(counts.token_ids.tolist(), counts.counts.tolist(), strict=True)) == {
        5: 0,
        9: 2,
        2: 1,
    }


@given(st.lists(st.integers(0, 400), max_size=500), st.lists(st.integers(0, 400), max_size=500))
def test_counts_grow_without_losing_any(prompt: list[int], generated: list[int]) -> None:
    """However many different ids come."""
    counts = TokenCounts(prompt)
    for token_id in generated:
        counts.add(token_id)
    expected = {i: generated.count(i) for i in {*prompt, *generated}}
    assert expected == dict(zip(counts.token_ids.tolist(), counts.counts.tolist(), strict=True))
    assert len(counts) == len(expected)


def test_frequency_and_presence_follow_their_formula() -> None:
    """The count times one, and the other once if it was there at all."""
    logits = _column([1.0, 2.0, 3.0])[None, :]
    LogitEdits(logits).penalize(
        np.array([0, 0]),
        np.array([0, 2]),
        _column([3, 0]),
        repetition=_column([1, 1]),
        frequency=_column([0.5, 0.5]),
        presence=_column([0.25, 0.25]),
    )
    assert logits[0].tolist() == [1.0 - 1.5 - 0.25, 2.0, 3.0]


def test_repetition_makes_positive_and_negative_scores_less_likely() -> None:
    """Division above zero, multiplication below."""
    logits = _column([3.0, -3.0])[None, :]
    LogitEdits(logits).penalize(
        np.array([0, 0]),
        np.array([0, 1]),
        _column([0, 0]),
        repetition=_column([1.5, 1.5]),
        frequency=_column([0, 0]),
        presence=_column([0, 0]),
    )
    assert logits[0].tolist() == pytest.approx([2.0, -4.5])


def test_undo_gives_the_logits_back_bit_for_bit() -> None:
    """Even where several edits hit the same token."""
    before = np.random.default_rng(1).normal(0, 3, (2, 8)).astype(np.float32)
    logits = before.copy()
    edits = LogitEdits(logits)
    rows, columns = np.array([0, 1]), np.array([3, 3])
    edits.add(rows, columns, _column([100.0, -100.0]))
    edits.penalize(
        rows,
        columns,
        _column([1, 2]),
        repetition=_column([2, 2]),
        frequency=_column([1, 1]),
        presence=_column([0, 0]),
    )
    edits.forbid(rows, columns)
    assert not np.array_equal(before, logits)
    edits.undo()
    assert np.array_equal(before, logits)

"""Truncation and the draw, against the plain reference.

Uniforms on an even grid make the test exact: a token of probability p is drawn by the grid's
points in an interval of length p, so its count is within one of p times their number.
"""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.engine.drawing import Filters, draw_filtered, draw_whole, plausible_ids
from provider_core.types import SamplingParams
from tests.unit.engine.reference_sampling import probabilities

_GRID = 2000


def _frequencies(
    logits: npt.NDArray[np.float32], params: SamplingParams
) -> npt.NDArray[np.float64]:
    """How often each id is drawn, over an even grid of uniforms; one row per point."""
    scaled = ((logits - logits.max()) / np.float32(params.temperature))[None, :]
    scaled = np.repeat(scaled, _GRID, axis=0)
    uniforms = (np.arange(_GRID) + 0.5) / _GRID
    top_k = params.top_k if params.top_k < len(logits) else 0
    is_filtered = top_k or params.top_p < 1 or params.min_p or params.top_a
    if is_filtered:
        filters = Filters(
            top_k=np.full(_GRID, top_k),
            top_p=np.full(_GRID, params.top_p),
            min_p=np.full(_GRID, params.min_p),
            top_a=np.full(_GRID, params.top_a),
        )
        ids = draw_filtered(scaled, uniforms, filters)
    else:
        ids = draw_whole(scaled, uniforms)
    return np.bincount(ids, minlength=len(logits)) / _GRID


CASES = [
    SamplingParams(max_tokens=1),
    SamplingParams(max_tokens=1, temperature=0.3),
    SamplingParams(max_tokens=1, temperature=2.0),
    SamplingParams(max_tokens=1, top_k=1),
    SamplingParams(max_tokens=1, top_k=7),
    SamplingParams(max_tokens=1, top_p=0.5),
    SamplingParams(max_tokens=1, top_p=0.99),
    SamplingParams(max_tokens=1, top_p=0.0),
    SamplingParams(max_tokens=1, min_p=0.1),
    SamplingParams(max_tokens=1, min_p=1.0),
    SamplingParams(max_tokens=1, top_a=0.3),
    SamplingParams(max_tokens=1, top_a=1.0),
    SamplingParams(max_tokens=1, temperature=0.8, top_k=20, top_p=0.8),
    SamplingParams(max_tokens=1, temperature=1.3, top_p=0.9, min_p=0.05),
    SamplingParams(max_tokens=1, temperature=1.3, top_p=0.9, top_a=0.2),
    SamplingParams(max_tokens=1, temperature=0.9, top_k=30, top_p=0.95, min_p=0.02, top_a=0.1),
]


@pytest.mark.parametrize("params", CASES, ids=str)
@pytest.mark.parametrize("vocab_size", [2, 37, 256, 1000])
def test_each_parameter_yields_its_distribution(params: SamplingParams, vocab_size: int) -> None:
    """Every id is drawn as often as the reference says, to within one point of the grid."""
    logits = np.random.default_rng(vocab_size).normal(0, 2, vocab_size).astype(np.float32)
    expected = probabilities(logits, params)
    actual = _frequencies(logits, params)
    assert np.abs(actual - expected).max() <= 1.01 / _GRID


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.integers(-12, 12), min_size=2, max_size=40),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 1.9]),
    top_k=st.integers(0, 10),
    top_p=st.sampled_from([0.0703, 0.5071, 0.9307, 1.0]),
    min_p=st.sampled_from([0.0, 0.003, 0.31]),
    top_a=st.sampled_from([0.0, 0.003, 0.31]),
)
def test_any_combination_yields_its_distribution(
    logits: list[int], temperature: float, top_k: int, top_p: float, min_p: float, top_a: float
) -> None:
    """The filters together, with ties: nothing kept that should go, nothing lost that stays."""
    vector = np.array(logits, dtype=np.float32)
    params = SamplingParams(
        max_tokens=1,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        top_a=top_a,
    )
    expected = probabilities(vector, params)
    actual = _frequencies(vector, params)
    assert np.abs(actual - expected).max() <= 1.01 / _GRID


def test_impossible_tokens_are_never_drawn() -> None:
    """Logits of minus infinity have no share, at the ends of the draw neither."""
    scaled = np.full((2, 600), -np.inf, dtype=np.float32)
    scaled[:, [3, 400]] = 0.0
    ends = np.array([0.0, np.nextafter(1.0, 0.0)])
    filters = Filters(
        top_k=np.array([10, 0]),
        top_p=np.array([1.0, 0.9]),
        min_p=np.zeros(2),
        top_a=np.zeros(2),
    )
    assert draw_whole(scaled, ends).tolist() == [3, 400]
    assert draw_filtered(scaled, ends, filters).tolist() == [3, 400]


@given(st.integers(0, 10_000), st.integers(2, 256))
def test_the_highest_uniform_draws_a_token(seed: int, vocab_size: int) -> None:
    """The sum in single precision may be above the one in double: the draw stays inside."""
    scaled = np.random.default_rng(seed).normal(0, 1, (1, vocab_size)).astype(np.float32)
    scaled -= scaled.max()
    highest = np.array([1.0 - 2.0**-53])
    assert draw_whole(scaled, highest).tolist() == [vocab_size - 1]
    filters = Filters(np.array([0]), np.array([0.9]), np.array([0.0]), np.array([0.0]))
    assert 0 <= draw_filtered(scaled, highest, filters)[0] < vocab_size


def test_equal_logits_are_cut_at_the_lowest_ids() -> None:
    """top_k is exact even when more tokens are equally likely."""
    logits = np.zeros(9, dtype=np.float32)
    frequencies = _frequencies(logits, SamplingParams(max_tokens=1, top_k=3))
    assert np.flatnonzero(frequencies).tolist() == [0, 1, 2]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), is_filtered=st.booleans())
def test_a_row_is_drawn_as_if_it_were_alone(seed: int, *, is_filtered: bool) -> None:
    """Neighbours change nothing, bit for bit, whatever width they give the candidates."""
    rng = np.random.default_rng(seed)
    n, vocab_size = 7, 700
    scaled = rng.normal(0, rng.uniform(0.1, 6), (n, vocab_size)).astype(np.float32)
    scaled -= scaled.max(axis=1, keepdims=True)
    uniforms = rng.random(n)
    filters = Filters(
        top_k=rng.choice([0, 5, 50], n),
        top_p=rng.choice([0.3, 0.95, 1.0], n),
        min_p=rng.choice([0.0, 0.02], n),
        top_a=rng.choice([0.01, 0.2], n),
    )
    for row in range(n):
        here = slice(row, row + 1)
        if is_filtered:
            alone = Filters(
                filters.top_k[here], filters.top_p[here], filters.min_p[here], filters.top_a[here]
            )
            expected = draw_filtered(scaled[here], uniforms[here], alone)[0]
            assert draw_filtered(scaled, uniforms, filters)[row] == expected
        else:
            expected = draw_whole(scaled[here], uniforms[here])[0]
            assert draw_whole(scaled, uniforms)[row] == expected


@pytest.mark.parametrize("params", CASES[3:], ids=str)
@pytest.mark.parametrize("spread", [0.3, 2.0, 6.0])
def test_ids_that_are_not_plausible_are_never_drawn(params: SamplingParams, spread: float) -> None:
    """The draw of the plausible ids alone is the draw of all, and there are fewer of them."""
    rng = np.random.default_rng(5)
    vocab_size = 40_000
    logits = rng.normal(0, spread, vocab_size).astype(np.float32)
    logits[[3, 30_000, 39_999]] = logits.max()  # ties at the top
    peak, temperature = logits.max(), np.float32(params.temperature)
    filters = Filters(
        top_k=np.array([params.top_k]),
        top_p=np.array([params.top_p]),
        min_p=np.array([params.min_p]),
        top_a=np.array([params.top_a]),
    )
    ids = plausible_ids(logits, float(peak), params.temperature, filters)
    assert len(ids) < vocab_size or spread < 6  # flat ones: all are
    scaled = (logits - peak) / temperature
    for uniform in (np.arange(50) + 0.5) / 50:
        draws = np.array([uniform])
        [among_all] = draw_filtered(scaled[None], draws, filters)
        [among_plausible] = draw_filtered(scaled[None, ids], draws, filters)
        assert ids[among_plausible] == among_all

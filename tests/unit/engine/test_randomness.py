"""Draws by counting."""

import numpy as np
from scipy import stats

from provider_core.engine.randomness import STREAM_STEP, fresh_seed, stream_state, uniforms


def _stream(seed: int, length: int, start: int = 0) -> np.ndarray:
    states = [stream_state(seed, position) for position in range(start, start + length)]
    return uniforms(np.array(states, dtype=np.uint64))


def test_a_draw_depends_on_seed_and_position_only() -> None:
    """Draw 7 is the same whether the stream was read from its start or from there."""
    assert _stream(5, 10)[7] == _stream(5, 1, start=7)[0]


def test_stepping_a_state_is_the_next_position() -> None:
    """Adding the step, wrapping around, is as good as making the state anew."""
    states = np.array([stream_state(seed, 0) for seed in range(50)], dtype=np.uint64)
    for position in range(1, 4):
        states += STREAM_STEP
        expected = [stream_state(seed, position) for seed in range(50)]
        assert expected == states.tolist()


def test_draws_are_in_the_half_open_unit_interval() -> None:
    """0 may come, 1 never, not even from all bits set before the last mixing step."""
    draws = _stream(1, 5000)
    assert draws.min() >= 0.0
    assert draws.max() < 1.0


def test_a_stream_is_uniform() -> None:
    """Kolmogorov-Smirnov over one long stream."""
    assert stats.kstest(_stream(2024, 20_000), "uniform").pvalue > 0.001


def test_the_first_draws_of_neighbouring_seeds_are_uniform() -> None:
    """Clients count seeds up from 0; their first tokens must not be alike."""
    firsts = np.array([_stream(seed, 1)[0] for seed in range(5000)])
    assert stats.kstest(firsts, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(firsts[:-1], firsts[1:])[0, 1]) < 0.05


def test_seeds_one_increment_apart_are_not_the_same_stream_shifted() -> None:
    """Without mixing the seed, stream s + increment would be stream s from its second draw on."""
    first = _stream(7, 5)
    other = _stream(7 + int(STREAM_STEP), 5)
    assert not np.isin(other, first).any()


def test_any_integer_is_a_seed() -> None:
    """Negative and huge seeds are taken modulo 2**64."""
    assert stream_state(-1, 0) == stream_state(2**64 - 1, 0)
    assert stream_state(2**64 + 3, 1) == stream_state(3, 1)


def test_fresh_seeds_differ() -> None:
    """An unseeded request is not repeatable."""
    assert fresh_seed() != fresh_seed()

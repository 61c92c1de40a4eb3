"""Costs from measured rounds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from provider_core.errors import ConfigurationError
from provider_core.planning.costs import StepCosts
from provider_core.planning.fitting import fit_costs, nonnegative_least_squares
from provider_core.planning.rehearsal import rehearse
from provider_core.planning.replica import ReplicaSpec
from tests.unit.planning.plan_rounds import simulated_bench

TRUE = [
    StepCosts(call_s=0.02, row_s=0.001, prompt_token_s=0.0002, request_s=0.005),
    StepCosts(call_s=0.008, row_s=0.0001, prompt_token_s=0.00002, request_s=0.002),
    StepCosts(call_s=0.025, prompt_token_s=0.0005),
    StepCosts(call_s=0.02, row_s=0.001, prompt_token_s=0.0002, request_s=0.005, mixes=True),
    StepCosts(call_s=0.02, row_s=0.001, prompt_token_s=0.0002, context_token_s=4e-6),
]


@pytest.mark.parametrize("true", TRUE)
def test_known_costs_are_found_again(true: StepCosts) -> None:
    """From nothing but means and medians, to within 5 per cent."""
    spec = ReplicaSpec(costs=true, slots=16)
    rounds = simulated_bench(spec)

    found = fit_costs(rounds, slots=16, chunk_tokens=512, target_itl_s=0.15).costs

    assert found.mixes == true.mixes
    for rows in (1, 4, 16):
        for context in (0, 600 * rows):
            expected = true.decode_s(rows, context)
            assert found.decode_s(rows, context) == pytest.approx(expected, rel=0.05)
    assert found.prompt_token_s == pytest.approx(true.prompt_token_s, rel=0.05)
    assert found.request_s + found.call_s == pytest.approx(true.request_s + true.call_s, rel=0.05)


@pytest.mark.parametrize("true", TRUE)
def test_the_rehearsal_says_how_far_the_fit_is_off(true: StepCosts) -> None:
    """Little with the fitted costs, and as much as they are wrong by with others."""
    spec = ReplicaSpec(costs=true, slots=16)
    rounds = simulated_bench(spec)

    fitted = rehearse(rounds, fit_costs(rounds, slots=16, chunk_tokens=512, target_itl_s=0.15))
    slower = replace(true, call_s=2 * true.call_s, row_s=2 * true.row_s)
    wrong = rehearse(rounds, replace(spec, costs=slower))

    assert max(abs(each.throughput_error) for each in fitted) < 0.1
    assert min(abs(each.throughput_error) for each in wrong) > 0.2


def test_a_bench_of_a_larger_server_is_taken_as_such() -> None:
    """Rows that a server of so few slots could not have had."""
    rounds = simulated_bench(ReplicaSpec(costs=TRUE[0], slots=16))

    found = fit_costs(rounds, slots=4, chunk_tokens=512, target_itl_s=0.15)

    assert found.slots == 16
    assert found.costs.row_s == pytest.approx(TRUE[0].row_s, rel=0.05)


def test_rounds_that_cannot_tell_costs_apart_are_refused() -> None:
    """With what to measure instead."""
    rounds = simulated_bench(ReplicaSpec(costs=TRUE[0], slots=16))
    alone = [each for each in rounds if each.concurrency == 1]
    together = [each for each in rounds if each.concurrency != 1]
    short = [each for each in rounds if each.prompt_tokens == 64]
    open_loop = [replace(each, concurrency=None, rate=1.0) for each in rounds]

    for few in (alone, together, short, open_loop, []):
        with pytest.raises(ConfigurationError, match=r"provider bench URL --concurrency 1,4"):
            fit_costs(few, slots=16, chunk_tokens=512, target_itl_s=0.15)


@given(st.integers(0, 2**32 - 1))
def test_least_squares_without_negative_entries(seed: int) -> None:
    """As scipy's."""
    random = np.random.default_rng(seed)
    matrix, values = random.normal(size=(7, 4)), random.normal(size=7)

    assert nonnegative_least_squares(matrix, values) == pytest.approx(nnls(matrix, values)[0])

"""Candidates where float32's rounding makes ties: the lower id wins, as among whole rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.engine.constraints import MaskWorker
from provider_core.types import SamplingParams
from tests.unit.engine.candidate_runner import GivenLogits
from tests.unit.engine.candidate_steps import (
    GREEDY,
    VOCAB_SIZE,
    K,
    Logits,
    check_same,
    constrain,
    new_sequence,
    run,
    run_whole,
)

LARGE_VOCAB, LARGE_K = 40_000, 256  # whole rows of so many ids are pruned before they are scaled


@pytest.fixture(scope="module")
def masks() -> MaskWorker:
    """Makes the masks of all tests."""
    return MaskWorker(LARGE_VOCAB)


def find_merged(factor: np.float32, rng: np.random.Generator) -> tuple[np.float32, np.float32]:
    """Two adjacent numbers, the higher first, whose products with a factor are one."""
    while True:
        higher = np.float32(-rng.uniform(0.1, 2))
        lower = np.nextafter(higher, np.float32(-9))
        if higher * factor == lower * factor:
            return higher, lower


@pytest.mark.parametrize("vocab_size", [VOCAB_SIZE, LARGE_VOCAB])
def test_ids_that_the_temperature_makes_equal_are_tied(vocab_size: int) -> None:
    """At the end of `top_k`: of two that scaling rounds to one the lower id stays."""
    params = SamplingParams(max_tokens=9, temperature=1 / 0.55, top_k=2)
    factor = np.float32(1 / params.temperature)
    rng = np.random.default_rng(0)
    for _ in range(5):
        row = rng.normal(-30, 0.1, vocab_size).astype(np.float32)
        peak, *ids = rng.choice(vocab_size, 3, replace=False).tolist()
        row[peak] = 0.0
        row[[max(ids), min(ids)]] = find_merged(factor, rng)
        rows = [replace(params, seed=seed) for seed in range(10)]
        logits = np.tile(row, (len(rows), 1))

        sampled = run(GivenLogits(logits, K), [new_sequence(p) for p in rows])

        assert sampled is not None
        check_same(run_whole(logits, [new_sequence(p) for p in rows]), sampled)
        assert set(sampled.token_ids.tolist()) == {peak, min(ids)}


@pytest.mark.parametrize("lowest", [-np.inf, np.finfo(np.float32).min])
def test_top_k_beyond_what_can_be_is_drawn(lowest: float) -> None:
    """A model may give all ids but a few the lowest number there is."""
    row = np.full(LARGE_VOCAB, lowest, dtype=np.float32)
    row[[7, 9]] = 1.0
    rows = [SamplingParams(max_tokens=9, top_k=5, seed=seed) for seed in range(20)]
    logits = np.tile(row, (len(rows), 1))
    assert set(run_whole(logits, [new_sequence(p) for p in rows]).token_ids.tolist()) == {7, 9}


@pytest.mark.parametrize("is_at_the_end", [False, True])
def test_alternatives_that_the_highest_makes_equal_are_tied(*, is_at_the_end: bool) -> None:
    """By their distance from it, which float32 rounds; at the end of the list the row tells."""
    row = np.linspace(-5, -6, VOCAB_SIZE, dtype=np.float32)
    row[40] = 30.0
    row[7], row[12] = np.float32(0.1), np.float32(0.1) + np.float32(4e-7)
    logits, k = row[np.newaxis], 2 if is_at_the_end else K
    runner = GivenLogits(logits, k)
    params = replace(GREEDY, logprobs=2)

    sampled = run(runner, [new_sequence(params)], k)

    assert sampled is not None
    check_same(run_whole(logits, [new_sequence(params)]), sampled)
    assert [token_id for token_id, _ in sampled.logprobs[0].top] == [40, 7]
    assert runner.fetched == [[0]] * is_at_the_end


_PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.just(100),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1 / 0.55]),
    top_p=st.sampled_from([0.5, 0.95, 1.0]),
    top_k=st.sampled_from([0, 1, 40, LARGE_K, LARGE_K + 1, LARGE_VOCAB - 1]),
    min_p=st.sampled_from([0.0, 0.05]),
    seed=st.integers(0, 2**64 - 1),
    logprobs=st.sampled_from([None, None, 5]),
)


@settings(max_examples=30, deadline=None)
@given(
    cases=st.lists(st.tuples(_PARAMS, st.sampled_from([None, None, 3])), min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
    step=st.sampled_from([0.0, 2.0**-24, 0.25]),
    is_ready=st.booleans(),
)
def test_ids_are_those_of_whole_logits(
    masks: MaskWorker,
    cases: list[tuple[SamplingParams, int | None]],
    seed: int,
    step: float,
    *,
    is_ready: bool,
) -> None:
    """Of a large vocabulary, with logits that lie close together or on a grid."""
    logits = make_logits(len(cases), seed, step)
    both: list[Any] = []
    for _ in range(2):
        sequences = [new_sequence(params) for params, _ in cases]
        for sequence, (_, stride) in zip(sequences, cases, strict=True):
            if stride is not None:
                allowed = set(range(0, LARGE_VOCAB, stride))
                constrain(sequence, masks, allowed, is_ready=is_ready)
        both.append(sequences)

    actual = run(GivenLogits(logits, LARGE_K), both[0], LARGE_K)

    assert actual is not None
    check_same(run_whole(logits, both[1]), actual, tolerance=5e-5)


def make_logits(num_rows: int, seed: int, step: float) -> Logits:
    """Random rows, whose highest lie so many apart; 0 is anywhere."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (num_rows, LARGE_VOCAB)).astype(np.float32)
    if step:
        logits[:, : 2 * LARGE_K] = 10 - np.float32(step) * rng.integers(0, 90, 2 * LARGE_K)
    return logits

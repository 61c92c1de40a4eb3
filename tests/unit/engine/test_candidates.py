"""Steps of candidates: the ids that whole logits would draw, and how rarely a row is fetched."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.engine.constraints import MaskWorker
from provider_core.errors import StepFailed
from provider_core.testing import decode_batch, prefill_batch
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
    new_steps,
    random_logits,
    run,
    run_whole,
)


@pytest.fixture(scope="module")
def masks() -> MaskWorker:
    """Makes the masks of all tests."""
    return MaskWorker(VOCAB_SIZE)


_PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.just(100),
    min_tokens=st.sampled_from([0, 0, 50]),
    temperature=st.sampled_from([0.0, 0.05, 0.7, 1.0, 2.0]),
    top_p=st.sampled_from([1e-9, 0.5, 0.9, 1.0 - 2.0**-53, 1.0]),
    top_k=st.sampled_from([0, 0, 1, 3, K - 1, K, K + 1, 20, VOCAB_SIZE - 1, 500]),
    min_p=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    top_a=st.sampled_from([0.0, 0.0, 0.0, 0.2]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.0, 0.8]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.0, 1.3]),
    logit_bias=st.sampled_from([(), (), (), ((2, 5.0), (900, 1.0))]),
    seed=st.integers(0, 2**64 - 1),
    logprobs=st.sampled_from([None, None, 0, 1, 5, K, 20]),
)
_BAD = st.sampled_from([None, None, None, None, np.nan, np.inf])


@st.composite
def _rows(draw: st.DrawFn) -> Logits:
    """Steep or flat, with ties or without, and with ids that cannot be."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    row = rng.normal(0, draw(st.sampled_from([0.1, 1.0, 10.0])), VOCAB_SIZE).astype(np.float32)
    row = row.round(draw(st.sampled_from([0, 1, 6])))
    row[rng.permutation(VOCAB_SIZE)[draw(st.integers(1, VOCAB_SIZE)) :]] -= 30
    row[rng.permutation(VOCAB_SIZE)[draw(st.integers(1, 2 * VOCAB_SIZE)) :]] = -np.inf
    return row * np.float32(draw(st.sampled_from([1.0, 1.0, 1000.0])))


@st.composite
def _cases(draw: st.DrawFn) -> dict[str, Any]:
    """A row, what is asked of it, and what its grammar allows if it has one."""
    row, params, bad = draw(_rows()), draw(_PARAMS), draw(_BAD)
    if bad is not None:
        row[draw(st.integers(0, VOCAB_SIZE - 1))] = bad
    allowed = st.one_of(
        st.none(),
        st.sets(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=5),
        st.just(set(range(0, VOCAB_SIZE, 2))),
    )
    return {
        "row": row,
        "params": params,
        "allowed": draw(allowed),
        "is_ready": draw(st.booleans()),
        "position": draw(st.integers(0, 80)),
    }


@settings(max_examples=300, deadline=None)
@given(cases=st.lists(_cases(), min_size=1, max_size=4), k=st.sampled_from([1, K, VOCAB_SIZE]))
def test_ids_are_those_of_whole_logits(
    masks: MaskWorker, cases: list[dict[str, Any]], k: int
) -> None:
    """For any logits, with ties, NaN and infinity, and for any mix of parameters and grammars."""
    logits = np.stack([case["row"] for case in cases])
    both = []
    for _ in range(2):
        sequences = [new_sequence(case["params"], case["position"]) for case in cases]
        for sequence, case in zip(sequences, cases, strict=True):
            if case["allowed"] is not None:
                constrain(sequence, masks, case["allowed"], is_ready=case["is_ready"])
        both.append(sequences)
    expected = run_whole(logits, both[0])

    actual = run(GivenLogits(logits, k), both[1], k)

    if actual is not None:
        finite = logits[np.isfinite(logits)]
        check_same(expected, actual, tolerance=2e-5 + 1e-6 * float(np.abs(finite).max(initial=0)))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), top_p=st.sampled_from([0.5, 0.9, 1.0]))
def test_half_precision_ties_are_settled_by_the_lowest_id(seed: int, top_p: float) -> None:
    """Logits on a coarse grid, with many ties among the candidates and at their end."""
    rng = np.random.default_rng(seed)
    logits = rng.integers(-2, 3, (8, VOCAB_SIZE)).astype(np.float32)
    params = [replace(GREEDY, temperature=t, top_p=top_p, seed=seed) for t in (0.0, 0.3)] * 4
    runner = GivenLogits(logits, VOCAB_SIZE // 2)

    sampled = run(runner, [new_sequence(p) for p in params], VOCAB_SIZE // 2)

    assert sampled is not None
    check_same(run_whole(logits, [new_sequence(p) for p in params]), sampled)


def test_greedy_rows_fetch_nothing() -> None:
    """Nor do their log probabilities, with as many alternatives as a client may ask for."""
    logits = random_logits(4)
    params = [GREEDY, replace(GREEDY, logprobs=0), replace(GREEDY, logprobs=K - 1), GREEDY]
    runner = GivenLogits(logits, K)

    sampled = run(runner, [new_sequence(p) for p in params])

    assert sampled is not None
    check_same(run_whole(logits, [new_sequence(p) for p in params]), sampled)
    assert runner.fetched == []


def test_a_tie_with_what_is_not_listed_is_fetched_alone() -> None:
    """The lowest of the highest may be among the others. A tie within the list is settled there."""
    logits = random_logits(3)
    logits[1] = 1.0
    logits[2, [5, 30]] = 50.0
    runner = GivenLogits(logits, K)

    sampled = run(runner, [new_sequence(GREEDY) for _ in range(3)])

    assert sampled is not None
    assert sampled.token_ids.tolist() == [int(logits[0].argmax()), 0, 5]
    assert runner.fetched == [[1]]


@pytest.mark.parametrize(
    ("params", "most"),
    [
        (SamplingParams(max_tokens=9), 0.03),
        (SamplingParams(max_tokens=9, temperature=0.6), 0.01),
        (SamplingParams(max_tokens=9, top_p=0.9), 0.0),
        (SamplingParams(max_tokens=9, top_k=5, top_p=0.95), 0.0),
        (SamplingParams(max_tokens=9, min_p=0.05), 0.0),
    ],
)
def test_sampled_rows_are_rarely_fetched(params: SamplingParams, most: float) -> None:
    """From logits as steep as a model's: the ids are those of whole rows for every seed."""
    row = 14 - 2.2 * np.arange(VOCAB_SIZE, dtype=np.float32)
    logits = np.tile(np.random.default_rng(5).permutation(row), (500, 1))
    rows = [replace(params, seed=seed) for seed in range(500)]
    runner = GivenLogits(logits, K)

    sampled = run(runner, [new_sequence(p) for p in rows])

    assert sampled is not None
    assert len(set(sampled.token_ids.tolist())) > 1
    check_same(run_whole(logits, [new_sequence(p) for p in rows]), sampled)
    assert sum(map(len, runner.fetched)) <= most * len(rows)


@pytest.mark.parametrize("is_late", [False, True])
def test_a_nucleus_within_more_than_is_listed_is_fetched(
    masks: MaskWorker, *, is_late: bool
) -> None:
    """Of `top_k` tokens the mass has to be known: those listed would do for a smaller one."""
    logits = np.linspace(0.5, -0.5, VOCAB_SIZE, dtype=np.float32)[None]
    top_k = 6 if is_late else K + 20
    sequence = new_sequence(SamplingParams(max_tokens=9, top_k=top_k, top_p=0.5, seed=1))
    if is_late:
        constrain(sequence, masks, {0, 1, 2, *range(20, 40)}, is_ready=False)
    runner = GivenLogits(logits, K)

    assert run(runner, [sequence]) is not None
    assert runner.fetched == [[0]]


@pytest.mark.parametrize("rest_is_allowed", [False, True])
@pytest.mark.parametrize(
    ("temperature", "forbidden"),
    [(1.0, -3.9), (1.0, 20.0), (0.01, 20.0)],  # the last 2,000 times as far as the rest
)
def test_what_a_late_mask_leaves_is_between_two_bounds(
    masks: MaskWorker, temperature: float, forbidden: float, *, rest_is_allowed: bool
) -> None:
    """Nothing that is not listed may be allowed, or all of it, which is more of the nucleus."""
    row = np.full(VOCAB_SIZE, -4.0 * temperature, dtype=np.float32)  # e^-4, 36 times: 0.66
    row[: K - 2] = forbidden
    row[[K - 2, K - 1]] = (0.0, -0.1 * temperature)
    allowed = {K - 2, K - 1, *(range(K, VOCAB_SIZE) if rest_is_allowed else ())}
    params = SamplingParams(max_tokens=9, temperature=temperature, top_p=0.45)
    drawn = []
    for draw in (partial(run, GivenLogits(np.tile(row, (60, 1)), K)), None):
        sequences = [new_sequence(replace(params, seed=seed)) for seed in range(60)]
        for sequence in sequences:
            constrain(sequence, masks, allowed, is_ready=False)
        sampled = draw(sequences) if draw else run_whole(np.tile(row, (60, 1)), sequences)
        assert sampled is not None
        drawn.append(sampled.token_ids.tolist())
    assert drawn[0] == drawn[1]
    assert len(set(drawn[1])) == 1 + rest_is_allowed


@pytest.mark.parametrize("top_p", [0.5, 1.0])
def test_a_late_mask_hides_who_else_is_likely_enough(masks: MaskWorker, top_p: float) -> None:
    """That what is listed is forbidden says nothing of what is not."""
    row = np.full(VOCAB_SIZE, -1.0, dtype=np.float32)
    row[:K] = 0.0
    params = SamplingParams(max_tokens=9, min_p=0.1, top_p=top_p)
    rows = [replace(params, seed=seed) for seed in range(30)]
    logits = np.tile(row, (30, 1))
    logits[:, 0] = 1.0
    drawn = []
    for is_ready in (True, False):
        sequences = [new_sequence(p) for p in rows]
        for sequence in sequences:
            constrain(sequence, masks, {0, *range(K, VOCAB_SIZE)}, is_ready=is_ready)
        sampled = run(GivenLogits(logits, K), sequences)
        assert sampled is not None
        drawn.append(sampled.token_ids.tolist())
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 1


@pytest.mark.parametrize("error", [-5e-5, 0.0, 5e-5])
def test_a_nucleus_that_rounding_decides_is_fetched(error: float) -> None:
    """Half of two equal tokens is the first of them, and a little more would be both."""
    logits = np.full((20, VOCAB_SIZE), -np.inf, dtype=np.float32)
    logits[:, [3, 4]] = 1.0
    params = [SamplingParams(max_tokens=9, top_p=0.5, seed=seed) for seed in range(20)]
    runner = GivenLogits(logits, K, error=error)

    sampled = run(runner, [new_sequence(p) for p in params])

    assert sampled is not None
    assert set(sampled.token_ids.tolist()) == {3}
    assert runner.fetched == [list(range(20))]


def test_rows_with_edits_are_fetched_and_their_neighbours_are_not() -> None:
    """Bias, penalties, ids that may not come yet, and `top_a`."""
    edits: list[dict[str, Any]] = [
        {"logit_bias": ((3, 5.0),)},
        {"frequency_penalty": 0.5},
        {"repetition_penalty": 1.2},
        {"min_tokens": 3},
        {"top_a": 0.1, "temperature": 1.0},
    ]
    logits = random_logits(len(edits) + 1)
    params = [GREEDY, *(replace(GREEDY, seed=3, **edit) for edit in edits)]
    runner = GivenLogits(logits, K)

    sampled = run(runner, [new_sequence(p) for p in params])

    assert sampled is not None
    check_same(run_whole(logits, [new_sequence(p) for p in params]), sampled)
    assert runner.fetched == [[1, 2, 3, 4, 5]]
    assert run(GivenLogits(logits, K), [new_sequence(p) for p in params[1:]]) is None
    held_back = new_sequence(params[4], position=3)  # not any more
    runner = GivenLogits(logits[4:5], K)
    assert run(runner, [held_back]) is not None
    assert runner.fetched == []


def test_a_mask_that_is_ready_goes_along(masks: MaskWorker) -> None:
    """So that what a grammar allows is found wherever it is, and what it weighs is known."""
    logits = np.tile(np.linspace(5, -5, VOCAB_SIZE, dtype=np.float32), (3, 1))
    allowed = {VOCAB_SIZE - 1, VOCAB_SIZE - 3}  # the least likely
    drawn = replace(GREEDY, temperature=1.0, top_p=0.99, seed=1)
    edited = replace(GREEDY, frequency_penalty=1.0)
    logits = logits[[0, 0, 0, 0]]
    sequences = [new_sequence(p) for p in (GREEDY, drawn, GREEDY, edited)]
    for row in (0, 1, 3):
        constrain(sequences[row], masks, allowed, is_ready=True)
    runner = GivenLogits(logits, K)

    sampled = run(runner, sequences)

    assert sampled is not None
    assert sampled.token_ids[0] == VOCAB_SIZE - 3
    assert sampled.token_ids[1] in allowed
    assert (runner.masked, runner.fetched) == ([[0, 1]], [[3]])


def test_nobody_waits_for_a_mask_that_is_late(masks: MaskWorker) -> None:
    """It is applied to the candidates; if it allows none of them, the row is fetched."""
    logits = np.tile(np.linspace(5, -5, VOCAB_SIZE, dtype=np.float32), (2, 1))
    sequences = [new_sequence(GREEDY), new_sequence(GREEDY)]
    constrain(sequences[0], masks, {3, VOCAB_SIZE - 1}, is_ready=False)
    constrain(sequences[1], masks, {VOCAB_SIZE - 1}, is_ready=False)
    runner = GivenLogits(logits, K)

    sampled = run(runner, sequences)

    assert sampled is not None
    assert sampled.token_ids.tolist() == [3, VOCAB_SIZE - 1]
    assert (runner.masked, runner.fetched) == ([[]], [[1]])


def test_alternatives_beside_a_grammar_are_of_all_ids(masks: MaskWorker) -> None:
    """So its mask stays on the host."""
    sequence = new_sequence(replace(GREEDY, logprobs=2))
    constrain(sequence, masks, {5}, is_ready=True)
    logits = random_logits()
    runner = GivenLogits(logits, VOCAB_SIZE)

    sampled = run(runner, [sequence], VOCAB_SIZE)

    assert sampled is not None
    assert sampled.logprobs[0].token_id == 5
    assert [i for i, _ in sampled.logprobs[0].top] == np.argsort(-logits[0])[:2].tolist()
    assert (runner.masked, runner.fetched) == ([[]], [])


@pytest.mark.parametrize(
    ("batch", "params"),
    [
        (prefill_batch(0, [1, 2], num_logits=0), GREEDY),
        (prefill_batch(0, [1, 2], num_logits=2), replace(GREEDY, prompt_logprobs=1)),
        (prefill_batch(0, [1], num_logits=1), replace(GREEDY, prompt_logprobs=1)),
        (prefill_batch(0, [1, 2]), replace(GREEDY, max_tokens=0)),
    ],
)
def test_other_steps_are_left_to_whole_logits(batch: Any, params: SamplingParams) -> None:
    """Pieces of prompts, prompts whose own tokens are rated, and those that nothing follows."""
    runner = GivenLogits(random_logits(), K)
    assert new_steps(runner).run(batch, [new_sequence(params)]) is None
    assert runner.masked == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("token_ids", lambda values: values.astype(np.int64)),
        ("logits", lambda values: values[:, :-1]),
        ("log_masses", lambda values: values[:, None]),
        ("log_sum_exps", lambda values: values.astype(np.float64)),
    ],
)
def test_a_runner_that_returns_something_else_is_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str, change: Any
) -> None:
    """By the name of what is wrong."""
    runner = GivenLogits(random_logits(), K)
    found = runner.execute_candidates(decode_batch([1], [5]), np.ones(1, np.float32), {})
    wrong = replace(found, **{name: change(getattr(found, name))})
    monkeypatch.setattr(runner, "execute_candidates", lambda *_: wrong)
    with pytest.raises(StepFailed, match=f"the runner returned {name} of"):
        run(runner, [new_sequence(GREEDY)])

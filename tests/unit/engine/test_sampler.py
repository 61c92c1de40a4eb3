"""The sampler: a batch of rows, each with its own parameters."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from provider_core.engine.sampler import SamplingMetadata, sample
from provider_core.engine.sequence import Sequence, make_sequence
from provider_core.types import EngineOutput, GenerationRequest, SamplingParams
from tests.unit.engine.reference_sampling import probabilities

VOCAB_SIZE = 60
EOS = 0


def _ignore(output: EngineOutput) -> None:
    del output


def _sequence(
    params: SamplingParams, *, prompt: tuple[int, ...] = (1,), generated: tuple[int, ...] = ()
) -> Sequence:
    request = GenerationRequest(
        request_id="r", prompt_token_ids=prompt, sampling=params, eos_token_ids=frozenset({EOS})
    )
    sequence = make_sequence(request, _ignore, max_model_len=10_000)
    sequence.num_generated_tokens = len(generated)
    if sequence.counts is not None:
        for token_id in generated:
            sequence.counts.add(token_id)
    return sequence


def _params(**changes: Any) -> SamplingParams:  # whatever SamplingParams takes
    return replace(SamplingParams(max_tokens=100), **changes)


def _logits(num_rows: int = 1, *, vocab_size: int = VOCAB_SIZE) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(11)
    return rng.normal(0, 2, (num_rows, vocab_size)).astype(np.float32)


DISTRIBUTIONS = {
    "plain": _params(),
    "temperature": _params(temperature=0.6),
    "top_p": _params(top_p=0.8),
    "top_k": _params(top_k=9),
    "min_p": _params(min_p=0.08),
    "top_a": _params(top_a=0.4),
    "frequency": _params(frequency_penalty=0.7),
    "presence": _params(presence_penalty=-1.5),
    "repetition": _params(repetition_penalty=1.6),
    "bias": _params(logit_bias=((4, 3.0), (9, -100.0), (59, 1.5))),
    "min_tokens": _params(min_tokens=9, stop_token_ids=frozenset({7, 8})),
    "all": _params(
        temperature=0.9,
        top_k=40,
        top_p=0.95,
        min_p=0.01,
        top_a=0.02,
        frequency_penalty=0.3,
        presence_penalty=0.2,
        repetition_penalty=1.1,
        logit_bias=((3, 2.0),),
        min_tokens=9,
    ),
}
PROMPT = (5, 9, 30, 30)
GENERATED = (9, 41, 41, 12, 7, 41)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_parameter_yields_its_distribution(name: str) -> None:
    """Chi-square of 20,000 seeded draws against the plain reference; nothing outside it."""
    params = DISTRIBUTIONS[name]
    logits = _logits()[0]
    counts = np.zeros(VOCAB_SIZE)
    for first_seed in range(0, 20_000, 500):
        rows = [
            _sequence(replace(params, seed=seed), prompt=PROMPT, generated=GENERATED)
            for seed in range(first_seed, first_seed + 500)
        ]
        sampled = sample(np.tile(logits, (500, 1)), SamplingMetadata(rows, VOCAB_SIZE))
        counts += np.bincount(sampled.token_ids, minlength=VOCAB_SIZE)
    expected = probabilities(
        logits,
        params,
        prompt=PROMPT,
        generated=GENERATED,
        stop_ids=params.stop_token_ids | {EOS},
    )
    assert counts[expected == 0].sum() == 0
    is_likely = expected * counts.sum() >= 5
    observed = np.append(counts[is_likely], counts[~is_likely].sum())
    wanted = np.append(expected[is_likely], expected[~is_likely].sum()) * counts.sum()
    if wanted[-1] == 0:
        observed, wanted = observed[:-1], wanted[:-1]
    assert stats.chisquare(observed, wanted).pvalue > 0.001


_ANY_PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.just(100),
    min_tokens=st.sampled_from([0, 50]),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([0.3, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 20, 500]),
    min_p=st.sampled_from([0.0, 0.05]),
    top_a=st.sampled_from([0.0, 0.2]),
    frequency_penalty=st.sampled_from([0.0, 0.8]),
    presence_penalty=st.sampled_from([0.0, -0.8]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    logit_bias=st.sampled_from([(), ((2, 5.0), (900, 1.0))]),
    seed=st.integers(-5, 2**70),
    logprobs=st.sampled_from([None, 0, 3]),
    ignore_eos=st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(_ANY_PARAMS, min_size=2, max_size=8))
def test_a_row_is_sampled_as_if_it_were_alone(all_params: list[SamplingParams]) -> None:
    """Ids and logprobs over three steps are the same in the batch and without it."""
    steps = [_logits(len(all_params)) + i for i in range(3)]
    together = [_sequence(p, prompt=PROMPT) for p in all_params]
    metadata = SamplingMetadata(together, VOCAB_SIZE)
    results = []
    for logits in steps:
        results.append(sample(logits.copy(), metadata))
        for sequence in together:
            sequence.num_generated_tokens += 1
    for row, params in enumerate(all_params):
        alone = _sequence(params, prompt=PROMPT)
        for logits, result in zip(steps, results, strict=True):
            # A fresh SamplingMetadata each step: what it caches is not what counts.
            expected = sample(logits[[row]], SamplingMetadata([alone], VOCAB_SIZE))
            alone.num_generated_tokens += 1
            assert expected.token_ids[0] == result.token_ids[row]
            assert expected.logprobs.get(0) == result.logprobs.get(row)


def test_greedy_takes_the_highest_after_edits() -> None:
    """Bias decides greedy rows too, and its neighbours stay as they were."""
    rows = [
        _sequence(_params(temperature=0.0)),
        _sequence(_params(temperature=0.0, logit_bias=((33, 100.0),))),
    ]
    logits = np.tile(_logits(), (2, 1))
    sampled = sample(logits, SamplingMetadata(rows, VOCAB_SIZE))
    assert sampled.token_ids.tolist() == [int(logits[0].argmax()), 33]


def test_temperatures_too_small_for_the_quotient_are_greedy() -> None:
    """1e-30 is a valid temperature to the wire, and must not overflow."""
    logits = _logits()
    rows = [_sequence(_params(temperature=1e-30))]
    assert int(logits.argmax()) == sample(logits, SamplingMetadata(rows, VOCAB_SIZE)).token_ids[0]


def test_the_same_seed_draws_the_same_at_each_position() -> None:
    """And different positions and seeds draw differently."""

    def draw(seed: int, position: int) -> list[int]:
        sequence = _sequence(_params(seed=seed), generated=(2,) * position)
        metadata = SamplingMetadata([sequence] * 4, 5000)
        ids = sample(np.zeros((4, 5000), dtype=np.float32), metadata).token_ids
        return [int(token_id) for token_id in ids]

    assert draw(1, 0) == draw(1, 0)
    assert len(set(draw(1, 0))) == 1
    assert draw(1, 0) != draw(1, 1)
    assert draw(1, 0) != draw(2, 0)


def test_eos_and_stop_tokens_wait_for_min_tokens() -> None:
    """Masked at 2 of 3 tokens, free at 3 of 3, within one metadata."""
    params = _params(
        temperature=0.0, min_tokens=3, stop_token_ids=frozenset({7, 10_000}), logit_bias=((7, 50),)
    )
    sequence = _sequence(params, generated=(2, 2))
    metadata = SamplingMetadata([sequence], VOCAB_SIZE)
    assert sample(_logits(), metadata).token_ids[0] not in {7, EOS}
    sequence.num_generated_tokens += 1
    assert sample(_logits(), metadata).token_ids[0] == 7


def test_logprobs_are_of_the_raw_logits() -> None:
    """No temperature, no bias, no penalty in them, and the runner's array is as it was."""
    params = _params(
        temperature=0.2, logprobs=2, logit_bias=((33, 100.0),), repetition_penalty=1.5, min_tokens=5
    )
    logits = _logits()
    before = logits.copy()
    sampled = sample(logits, SamplingMetadata([_sequence(params)], VOCAB_SIZE))
    log_softmax = before[0] - np.logaddexp.reduce(before[0].astype(np.float64))
    entry = sampled.logprobs[0]
    assert entry.token_id == 33
    assert entry.logprob == pytest.approx(log_softmax[33], abs=1e-5)
    assert [i for i, _ in entry.top] == np.argsort(-log_softmax)[:2].tolist()
    assert np.array_equal(before, logits)


_LEAST = 5e-324  # the least positive number that JSON can bring


@settings(max_examples=150, deadline=None)
@given(
    params=st.builds(
        SamplingParams,
        max_tokens=st.just(100),
        min_tokens=st.sampled_from([0, 50]),
        temperature=st.sampled_from([0.0, _LEAST, 1e-5, 2.0]),
        top_p=st.sampled_from([_LEAST, 1.0 - 2.0**-53, 1.0]),
        top_k=st.sampled_from([0, 1, VOCAB_SIZE - 1, VOCAB_SIZE, 2**31 - 1]),
        min_p=st.sampled_from([0.0, _LEAST, 1.0]),
        top_a=st.sampled_from([0.0, _LEAST, 1.0]),
        frequency_penalty=st.sampled_from([-2.0, 0.0, 2.0]),
        presence_penalty=st.sampled_from([-2.0, 0.0, 2.0]),
        repetition_penalty=st.sampled_from([_LEAST, 1e-30, 1.0, 2.0]),
        logit_bias=st.sampled_from([(), ((2, 100.0), (3, -100.0))]),
        seed=st.sampled_from([0, 2**64 - 1]),
        logprobs=st.sampled_from([None, 20]),
    ),
    logits=st.sampled_from(
        [
            _logits(),
            np.zeros((1, VOCAB_SIZE), dtype=np.float32),
            np.full((1, VOCAB_SIZE), -1e4, dtype=np.float32),
            np.where(np.arange(VOCAB_SIZE) % 2, _logits(), -np.inf).astype(np.float32),
        ]
    ),
)
def test_no_parameters_make_a_row_fail(
    params: SamplingParams, logits: npt.NDArray[np.float32]
) -> None:
    """At the limits of what the wire admits: a failed row counts against the backend."""
    sequence = _sequence(params, prompt=PROMPT, generated=GENERATED * 50)
    sampled = sample(logits.copy(), SamplingMetadata([sequence], VOCAB_SIZE))
    assert sampled.failed_rows == ()
    assert 0 <= sampled.token_ids[0] < VOCAB_SIZE
    assert np.isfinite(logits[0, sampled.token_ids[0]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", [*DISTRIBUTIONS, "greedy"])
def test_a_row_that_is_not_finite_fails_alone(name: str, bad: float) -> None:
    """Its neighbours draw what they would have drawn."""
    params = DISTRIBUTIONS.get(name, _params(temperature=0.0))
    params = replace(params, seed=3, logprobs=2)
    logits = np.tile(_logits(), (3, 1))
    good = sample(logits.copy(), SamplingMetadata([_sequence(params)] * 3, VOCAB_SIZE))
    logits[1, 20] = bad
    rows = [_sequence(params), _sequence(params), _sequence(params)]
    sampled = sample(logits, SamplingMetadata(rows, VOCAB_SIZE))
    assert sampled.failed_rows == (1,)
    assert sampled.token_ids[[0, 2]].tolist() == good.token_ids[[0, 2]].tolist()
    assert sampled.logprobs[2] == good.logprobs[2]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_log_probabilities_need_all_logits(temperature: float, bad: float) -> None:
    """An id that may not come yet does no harm, but to a row that wants to know what is likely."""
    logits = np.tile(_logits(), (2, 1))
    logits[:, EOS] = bad
    params = _params(temperature=temperature, min_tokens=5, seed=3)
    rows = [_sequence(params), _sequence(replace(params, logprobs=2))]

    sampled = sample(logits, SamplingMetadata(rows, VOCAB_SIZE))

    assert sampled.failed_rows == (1,)


def test_read_only_logits_are_not_written() -> None:
    """A runner may hand out memory it maps."""
    logits = _logits()
    logits.setflags(write=False)
    params = _params(temperature=0.0, logit_bias=((33, 100.0),))
    assert sample(logits, SamplingMetadata([_sequence(params)], VOCAB_SIZE)).token_ids[0] == 33


def test_large_vocabularies_are_drawn_in_groups() -> None:
    """More logits than one group takes: every row still gets its own draw."""
    vocab_size = 400_000
    rows = [_sequence(_params(seed=i, top_p=1.0 - (i % 2) / 1e6)) for i in range(6)]
    logits = np.zeros((6, vocab_size), dtype=np.float32)
    metadata = SamplingMetadata(rows, vocab_size)
    assert len(metadata.groups) > 2
    ids = sample(logits, metadata).token_ids.tolist()
    alone = [
        int(sample(logits[:1], SamplingMetadata([row], vocab_size)).token_ids[0])
        for row in [_sequence(_params(seed=i, top_p=1.0 - (i % 2) / 1e6)) for i in range(6)]
    ]
    assert alone == ids


def test_filtered_rows_of_a_large_vocabulary_are_drawn_as_if_alone() -> None:
    """They are pruned first, in a crowd of rows or not, edited or not."""
    kinds = ("top_p", "top_k", "min_p", "top_a", "min_tokens", "bias")
    rows = [
        _sequence(replace(DISTRIBUTIONS[kind], top_p=0.9, seed=seed))
        for kind in kinds
        for seed in range(3)
    ]
    logits = _logits(len(rows), vocab_size=50_000)
    together = sample(logits, SamplingMetadata(rows, 50_000))
    alone = [
        int(sample(logits[i : i + 1], SamplingMetadata([row], 50_000)).token_ids[0])
        for i, row in enumerate(rows)
    ]
    assert together.token_ids.tolist() == alone
    assert len(set(alone)) > len(kinds)

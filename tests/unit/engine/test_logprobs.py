"""Log probabilities of the model's own distribution."""

import numpy as np
import pytest
from scipy.special import log_softmax

from provider_core.engine.logprobs import token_logprobs

LOGITS = np.random.default_rng(3).normal(0, 4, (5, 300)).astype(np.float32)
TOKEN_IDS = np.array([0, 17, 299, 4, 4])
EXPECTED = log_softmax(LOGITS.astype(np.float64), axis=1)


def test_the_chosen_tokens_value_is_the_log_softmax() -> None:
    """To float32's precision."""
    entries = token_logprobs(LOGITS, TOKEN_IDS, 0)
    assert [entry.token_id for entry in entries] == TOKEN_IDS.tolist()
    assert [entry.logprob for entry in entries] == pytest.approx(
        EXPECTED[np.arange(5), TOKEN_IDS].tolist(), abs=1e-5
    )
    assert all(entry.top == () for entry in entries)


def test_the_likeliest_come_in_order() -> None:
    """As many as asked for, with their values."""
    for row, entry in enumerate(token_logprobs(LOGITS, TOKEN_IDS, 20)):
        order = np.argsort(-EXPECTED[row])[:20]
        assert [token_id for token_id, _ in entry.top] == order.tolist()
        assert [value for _, value in entry.top] == pytest.approx(
            EXPECTED[row][order].tolist(), abs=1e-5
        )


def test_more_alternatives_than_tokens_are_all_tokens() -> None:
    """A tiny vocabulary has no twenty."""
    (entry,) = token_logprobs(np.zeros((1, 3), dtype=np.float32), np.array([1]), 20)
    assert [token_id for token_id, _ in entry.top] == [0, 1, 2]


def test_no_logprob_is_positive() -> None:
    """A token that is certain has 0, rounding or not."""
    logits = np.full((1, 50), -1e4, dtype=np.float32)
    logits[0, 7] = 1e4
    (entry,) = token_logprobs(logits, np.array([7]), 1)
    assert entry.logprob == 0.0
    assert entry.top == ((7, 0.0),)


def test_an_impossible_token_has_minus_infinity() -> None:
    """The model gave it no probability at all."""
    logits = np.array([[0.0, -np.inf, 0.0]], dtype=np.float32)
    (entry,) = token_logprobs(logits, np.array([1]), 0)
    assert entry.logprob == -np.inf

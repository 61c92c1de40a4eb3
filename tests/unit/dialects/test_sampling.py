"""Sampling completed with the prompt's length and the model's limits."""

from typing import Any

import pytest

from provider_core.dialects.sampling import PendingSampling, check_token_ids, to_sampling_params
from provider_core.errors import ContextLengthExceeded, InvalidRequest
from provider_core.types import SamplingParams
from tests.unit.dialects.request_bodies import chat, completion


def complete(pending: PendingSampling, **model: Any) -> SamplingParams:
    """Complete for a prompt of 10 tokens in a context of 100, or as said."""
    limits = {
        "num_prompt_tokens": 10,
        "max_model_len": 100,
        "max_output_tokens": None,
        "vocab_size": 50,
    }
    return to_sampling_params(pending, **{**limits, **model})


def refused(pending: PendingSampling, **model: Any) -> InvalidRequest:
    """The refusal to complete."""
    with pytest.raises(InvalidRequest) as raised:
        complete(pending, **model)
    return raised.value


def test_defaults_change_nothing() -> None:
    """A plain request samples as `SamplingParams` does by default."""
    assert complete(chat().sampling) == SamplingParams(max_tokens=90)


def test_every_field_arrives() -> None:
    """Nothing that was asked for is lost on the way."""
    parsed = chat(
        max_tokens=7,
        min_tokens=2,
        temperature=0,
        top_p=0.5,
        top_k=3,
        min_p=0.1,
        top_a=0.2,
        frequency_penalty=-1,
        presence_penalty=1,
        repetition_penalty=1.5,
        logit_bias={"4": -3},
        seed=11,
        logprobs=True,
        top_logprobs=5,
        stop_token_ids=[6],
        ignore_eos=True,
    )
    assert complete(parsed.sampling) == SamplingParams(
        max_tokens=7,
        min_tokens=2,
        temperature=0.0,
        top_p=0.5,
        top_k=3,
        min_p=0.1,
        top_a=0.2,
        frequency_penalty=-1.0,
        presence_penalty=1.0,
        repetition_penalty=1.5,
        logit_bias=((4, -3.0),),
        seed=11,
        logprobs=5,
        stop_token_ids=frozenset({6}),
        ignore_eos=True,
    )
    assert complete(completion(echo=True, logprobs=3).sampling).prompt_logprobs == 3


def test_p3_max_tokens_is_clamped_to_what_fits() -> None:
    """P3: the room in the context and the model's own maximum bind, large numbers do not harm."""
    assert complete(chat(max_tokens=90).sampling).max_tokens == 90
    for asked in (91, 2**31, 2**63):
        assert complete(chat(max_tokens=asked).sampling).max_tokens == 90
    assert complete(chat().sampling, max_output_tokens=20).max_tokens == 20
    assert complete(chat(max_tokens=5).sampling, max_output_tokens=20).max_tokens == 5
    assert complete(chat(max_tokens=50).sampling, max_output_tokens=20).max_tokens == 20
    assert complete(chat().sampling, num_prompt_tokens=99).max_tokens == 1


@pytest.mark.parametrize(("pending", "param"), [(chat(), "messages"), (completion(), "prompt")])
def test_only_a_prompt_without_room_is_too_long(pending: Any, param: str) -> None:
    """The message has the words clients search for, the limit and the count."""
    for num_prompt_tokens in (100, 101, 10**6):
        error = refused(pending.sampling, num_prompt_tokens=num_prompt_tokens)
        assert isinstance(error, ContextLengthExceeded)
        assert (error.param, error.code) == (param, "context_length_exceeded")
        assert "maximum context length is 100 tokens" in error.message
        assert str(num_prompt_tokens) in error.message


def test_p4_min_tokens_must_fit() -> None:
    """P4: with no maximum of its own, the room is the maximum."""
    assert complete(chat(min_tokens=90).sampling).min_tokens == 90
    assert refused(chat(min_tokens=91).sampling).param == "min_tokens"
    assert refused(chat(min_tokens=21).sampling, max_output_tokens=20).param == "min_tokens"


def test_p6_top_k_is_clamped_to_the_vocabulary() -> None:
    """P6: more than all is all."""
    assert complete(chat(top_k=50).sampling).top_k == 50
    assert complete(chat(top_k=2**31 - 1).sampling).top_k == 50
    assert complete(chat(top_k=-1).sampling).top_k == 0


def test_p9_p11_ids_stay_inside_the_vocabulary() -> None:
    """P9, P11: an id beyond it would reach into other rows."""
    assert complete(chat(logit_bias={"49": 1}).sampling).logit_bias == ((49, 1.0),)
    assert complete(chat(stop_token_ids=[49]).sampling).stop_token_ids == {49}
    for token_id in (50, 2**31, 9_999_999_999):
        assert refused(chat(logit_bias={str(token_id): 1}).sampling).param == "logit_bias"
        assert refused(chat(stop_token_ids=[0, token_id]).sampling).param == "stop_token_ids"


def test_p14_prompt_ids_stay_inside_the_vocabulary() -> None:
    """P14: negative, equal to the size, and huge ids are refused."""
    check_token_ids([0, 49], "prompt", 50)
    check_token_ids([], "prompt", 50)
    for token_id in (-1, 50, 2**40):
        with pytest.raises(InvalidRequest) as raised:
            check_token_ids([0, token_id], "prompt", 50)
        assert raised.value.param == "prompt"


@pytest.mark.parametrize(
    ("asked", "param"),
    [({"top_a": 0.5}, "top_a"), ({"logit_bias": {"4": 1}}, "logit_bias"), ({"seed": 0}, "seed")],
)
def test_what_an_engine_lacks_is_refused_by_name(asked: dict[str, Any], param: str) -> None:
    """If it is asked for; its neutral value asks nothing."""
    unsupported = frozenset({"logit_bias", "seed", "top_a", "grammar"})
    neutral = chat(top_a=0, logit_bias={}).sampling

    assert refused(chat(**asked).sampling, unsupported_params=unsupported).param == param
    assert complete(neutral, unsupported_params=unsupported).max_tokens == 90

"""Fields both endpoints share: types, ranges, nulls, limits, and what is ignored."""

from dataclasses import replace
from typing import Any

import pytest

from provider_core.dialects.openai import parse_chat, parse_completion
from provider_core.dialects.openai.protocol import ChatCompletionRequest, CompletionRequest
from provider_core.dialects.openai.requests import MAX_USER
from provider_core.errors import InvalidRequest
from tests.unit.dialects.request_bodies import (
    LIMITS,
    MESSAGES,
    chat,
    completion,
    refused_chat,
    refused_completion,
)

INTEGER_FIELDS = ("n", "best_of", "max_tokens", "min_tokens", "top_k", "seed")
NUMBER_FIELDS = (
    "temperature",
    "top_p",
    "min_p",
    "top_a",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
)
IN_RANGE = [
    ("n", 1),
    ("n", 8),
    ("best_of", 0),
    ("max_tokens", 1),
    ("max_tokens", 2**31),
    ("max_tokens", 2**63),
    ("min_tokens", 0),
    ("temperature", 0),
    ("temperature", 2),
    ("temperature", 0.7),
    ("top_p", 1),
    ("top_p", 1e-9),
    ("top_k", 0),
    ("top_k", -1),
    ("top_k", 2**31 - 1),
    ("min_p", 0),
    ("min_p", 1),
    ("top_a", 1),
    ("frequency_penalty", -2),
    ("frequency_penalty", 2),
    ("presence_penalty", 2),
    ("repetition_penalty", 2),
    ("repetition_penalty", 0.1),
    ("seed", -(2**63)),
    ("seed", 2**64 - 1),
    ("stop_token_ids", []),
    ("stop_token_ids", [0, 7]),
]
OUT_OF_RANGE = [
    ("n", 0),
    ("n", -1),
    ("n", 9),
    ("n", 10**9),
    ("best_of", -1),
    ("best_of", 21),
    ("best_of", 10**9),
    ("max_tokens", -1),
    ("min_tokens", -1),
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", 1e308),
    ("temperature", float("inf")),
    ("temperature", float("nan")),
    ("top_p", 0),
    ("top_p", 1.1),
    ("top_p", float("nan")),
    ("top_k", -2),
    ("top_k", 2**31),
    ("min_p", -0.1),
    ("min_p", 1.1),
    ("min_p", float("nan")),
    ("top_a", 1.1),
    ("frequency_penalty", 2.1),
    ("frequency_penalty", -2.1),
    ("frequency_penalty", float("nan")),
    ("presence_penalty", 2.1),
    ("repetition_penalty", 0),
    ("repetition_penalty", -1),
    ("repetition_penalty", 2.1),
    ("repetition_penalty", float("nan")),
    ("model", ""),
]


@pytest.mark.parametrize(("field", "value"), IN_RANGE)
def test_the_ends_of_every_range_are_inside(field: str, value: Any) -> None:
    """Both endpoints take the limits themselves."""
    chat(**{field: value})
    completion(**{field: value})


@pytest.mark.parametrize(("field", "value"), OUT_OF_RANGE)
def test_p1_to_p7_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    """P1, P2, P3, P5, P6, P7: a 400 that names the field, on both endpoints."""
    for error in (refused_chat(**{field: value}), refused_completion(**{field: value})):
        assert error.status == 400
        assert error.param == field
        assert error.message.startswith(field)


def test_p3_a_chat_has_tokens_and_a_completion_may_have_none() -> None:
    """OpenAI's completions take 0, to score a prompt."""
    assert refused_chat(max_tokens=0).param == "max_tokens"
    assert completion(max_tokens=0).sampling.max_tokens == 0
    assert refused_completion(max_tokens=0, min_tokens=1).param == "min_tokens"


def test_a_refusal_names_value_and_limit() -> None:
    """The message is enough to repair the request."""
    assert refused_chat(temperature=5).message == "temperature must be at most 2, not 5"
    assert refused_chat(n=9).message == "n must be at most 8, not 9"
    assert refused_chat(top_k=2**31).message == "top_k must be less than 2147483648, not 2147483648"


@pytest.mark.parametrize("value", [True, False, "5", "", 5.0, 1e3, 1.5, [1], {"a": 1}])
@pytest.mark.parametrize("field", INTEGER_FIELDS)
def test_j8_integers_are_integers(field: str, value: Any) -> None:
    """J8: booleans, strings, integral floats are none."""
    for error in (refused_chat(**{field: value}), refused_completion(**{field: value})):
        assert (error.param, error.code) == (field, "invalid_type")


@pytest.mark.parametrize("value", [True, "1", "0.5", [1], {}])
@pytest.mark.parametrize("field", NUMBER_FIELDS)
def test_j8_numbers_are_numbers(field: str, value: Any) -> None:
    """J8: booleans and strings are no numbers."""
    error = refused_chat(**{field: value})
    assert (error.param, error.code) == (field, "invalid_type")


@pytest.mark.parametrize("value", [1, 0, "true", "", [], {}])
@pytest.mark.parametrize("field", ["stream", "ignore_eos", "include_reasoning"])
def test_j8_booleans_are_booleans(field: str, value: Any) -> None:
    """J8: 1 is not true."""
    assert refused_chat(**{field: value}).param == field


@pytest.mark.parametrize("field", INTEGER_FIELDS)
def test_j7_integers_beyond_64_bit_are_out_of_range(field: str) -> None:
    """J7: the parser hands them over as floats; the answer speaks of size, not of type."""
    for number in (float(2**64), float(-(2**63) - 2**11)):
        error = refused_chat(**{field: number})
        assert (error.param, error.code) == (field, "invalid_value")


def test_null_is_absent() -> None:
    """A client that sends every field as null gets the defaults."""
    for model, parse, plain in (
        (ChatCompletionRequest, parse_chat, {"model": "m", "messages": MESSAGES}),
        (CompletionRequest, parse_completion, {"model": "m", "prompt": "hi"}),
    ):
        nulls = dict.fromkeys(model.model_fields)
        assert parse({**nulls, **plain}, LIMITS) == parse(plain, LIMITS)


def test_j13_p22_unknown_fields_are_ignored() -> None:
    """J13, P22: routing fields, other servers' extensions and nonsense change nothing."""
    fields: dict[str, Any] = {
        "models": ["a", "b"],
        "provider": {"order": ["x"], "sort": "price"},
        "plugins": [{"id": "web"}],
        "transforms": ["middle-out"],
        "usage": {"include": True},
        "session_id": "s",
        "n_discard": -5,
        "id_slot": -1,
        "cache_prompt": -1,
        "__class__": "x",
        "zzz": float("nan"),
    }
    assert chat(**fields) == chat()
    assert completion(**fields) == completion()


def test_p17_fields_that_redirect_other_servers_are_inert() -> None:
    """P17: nothing a client sends names a host or carries code, nested or not."""
    for field in ("api_base", "base_url", "user_config", "extra_body"):
        assert chat(**{field: {"api_base": "http://169.254.169.254/"}}) == chat()
    assert refused_chat(custom_logit_processor="x").code == "unsupported_parameter"


def test_p16_model_must_be_a_string() -> None:
    """P16: missing, null and other types are 400; which names exist is not decided here."""
    with pytest.raises(InvalidRequest) as raised:
        parse_chat({"messages": MESSAGES}, LIMITS)
    assert raised.value.message == "model is required"
    assert (raised.value.param, raised.value.status) == ("model", 400)
    for value in (None, 5, ["m"], {"id": "m"}):
        assert refused_chat(model=value).param == "model"
    assert chat(model="../../etc/passwd").model == "../../etc/passwd"


def test_p23_stream_options_are_an_object_and_need_a_stream() -> None:
    """P23: the wrong type is 400 with and without a stream; without one they have no effect."""
    for stream in (True, False):
        wrong: list[Any] = [True, "include_usage", [], 1]
        for value in wrong:
            assert refused_chat(stream=stream, stream_options=value).param == "stream_options"
        error = refused_chat(stream=stream, stream_options={"include_usage": "yes"})
        assert error.param == "stream_options.include_usage"
    asked = {"include_usage": True, "include_obfuscation": False}
    assert chat(stream=True, stream_options=asked).include_usage
    assert not chat(stream=False, stream_options=asked).include_usage
    assert not chat(stream=True).include_usage
    assert not chat(stream=True, stream_options={"include_usage": None}).include_usage


def test_p24_user_and_metadata_are_cut() -> None:
    """P24: a megabyte in a label is no reason to refuse, and is not kept."""
    parsed = chat(
        user="u" * 10**6,
        metadata={"k" * 100: "v" * 1000, "n": 5} | {f"key{i}": "x" for i in range(100)},
    )
    assert parsed.user == "u" * MAX_USER
    assert len(parsed.metadata) == 16
    assert max(map(len, parsed.metadata)) == 64
    assert max(map(len, parsed.metadata.values())) == 512
    assert refused_chat(user=5).param == "user"
    assert refused_chat(metadata="x").param == "metadata"


def test_p20_cache_salt_is_short_and_plain() -> None:
    """P20: 1 to 64 of letters, digits, `_` and `-`."""
    assert chat(cache_salt="a-B_9" * 12) == replace(chat(), cache_salt="a-B_9" * 12)
    for value in ("", "x" * 65, "a b", "a\n", "é", 5):
        assert refused_chat(cache_salt=value).param == "cache_salt"


def test_hints_without_effect_are_accepted() -> None:
    """Routing and caching hints of OpenAI's clients change nothing."""
    hints = {
        "safety_identifier": "x" * 128,
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "prompt_cache_options": {"mode": "x"},
        "parallel_tool_calls": True,
        "include_reasoning": True,
        "prediction": {"type": "content", "content": "x"},
    }
    assert chat(**hints) == chat()
    assert chat(service_tier="flex").service_tier == "default"
    assert refused_chat(service_tier="gold").param == "service_tier"


def test_bug_19_n_is_honoured_or_refused() -> None:
    """BUG-19: never silently one choice, streaming or not."""
    assert chat(n=3, stream=True).n == 3
    assert completion(n=3).n == 3
    assert refused_chat(n=9, stream=True).param == "n"


def test_p2_best_of_is_at_least_n_and_not_streamed() -> None:
    """P2: best_of chooses among more than n, of whole replies only, within n's limit."""
    assert completion(best_of=4, n=2).best_of == 4
    assert completion(n=3).best_of == 3
    assert completion(n=3, best_of=0).best_of == 3
    assert completion(n=2, best_of=2, stream=True).best_of == 2
    assert refused_completion(n=3, best_of=2).param == "best_of"
    assert refused_completion(best_of=9).param == "best_of"
    assert refused_completion(best_of=2, stream=True).param == "best_of"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, ()), ("x", ("x",)), ([], ()), (["a", "b", "c", "d"], ("a", "b", "c", "d"))],
)
def test_stop_takes_null_a_string_or_up_to_four(value: Any, expected: tuple[str, ...]) -> None:
    """The shapes OpenAI documents; an empty array is none."""
    assert chat(stop=value).stop == expected


@pytest.mark.parametrize(
    "value",
    [list("abcde"), "", ["a", ""], 5, {}, True, [5], [None], "x" * 257, "é" * 129, "x" * 2**20],
)
def test_p10_other_stops_are_refused(value: Any) -> None:
    """P10: five, empty, no strings, over 256 bytes."""
    assert refused_chat(stop=value).param == "stop"
    assert refused_completion(stop=value).param == "stop"


def test_stop_limit_counts_bytes() -> None:
    """256 bytes are allowed, whatever the characters."""
    assert chat(stop=["x" * 256, "é" * 128]).stop == ("x" * 256, "é" * 128)


def test_p9_logit_bias_maps_ids_to_small_numbers() -> None:
    """P9: what is no id or no number from -100 to 100 is refused."""
    parsed = chat(logit_bias={"5": 100, "0": -100, "7": 0.5})
    assert dict(parsed.sampling.logit_bias) == {5: 100.0, 0: -100.0, 7: 0.5}
    assert chat(logit_bias={}).sampling.logit_bias == ()
    hostile: list[Any] = [
        {"-1": 1},
        {"abc": 1},
        {"": 1},
        {"1.5": 1},
        {"٣": 1},
        {" 1": 1},
        {"1_0": 1},
        {"9" * 5000: 1},
        {"1": 101},
        {"1": -101},
        {"1": float("nan")},
        {"1": 1e9},
        {"1": True},
        {"1": "5"},
        {"1": None},
        {str(i): 1 for i in range(1025)},
        [5],
        "5",
    ]
    for value in hostile:
        assert refused_chat(logit_bias=value).param == "logit_bias"


def test_p11_stop_token_ids_are_a_short_list_of_ids() -> None:
    """P11: negative ids, other types and long lists are refused by place."""
    assert chat(stop_token_ids=[5, 5]).sampling.stop_token_ids == {5}
    assert refused_chat(stop_token_ids=[1, -1]).param == "stop_token_ids[1]"
    assert refused_chat(stop_token_ids=[True]).param == "stop_token_ids[0]"
    assert refused_chat(stop_token_ids=list(range(65))).param == "stop_token_ids"
    assert refused_chat(stop_token_ids=5).param == "stop_token_ids"


def test_p12_seeds_are_64_bit() -> None:
    """P12: negative seeds are masked to 64 bit, larger numbers and floats refused."""
    assert chat(seed=0).sampling.seed == 0
    assert chat(seed=-1).sampling.seed == 2**64 - 1
    assert chat().sampling.seed is None
    assert refused_chat(seed=float(2**64)).param == "seed"
    assert refused_chat(seed=1.5).param == "seed"


def test_p4_min_tokens_is_at_most_max_tokens() -> None:
    """P4: whatever name the maximum has, and its default for completions."""
    assert chat(min_tokens=5, max_tokens=5).sampling.min_tokens == 5
    assert refused_chat(min_tokens=6, max_tokens=5).param == "min_tokens"
    assert refused_chat(min_tokens=6, max_completion_tokens=5).param == "min_tokens"
    assert refused_completion(min_tokens=17).param == "min_tokens"


def test_messages_never_repeat_much_of_the_request() -> None:
    """At most 64 characters of what the client sent come back."""
    secret = "SECRET" * 1000
    fields: list[dict[str, Any]] = [
        {"temperature": secret},
        {"stop": [secret]},
        {"logit_bias": {secret: 1}},
        {"service_tier": secret},
        {"messages": [{"role": secret, "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": secret}]}]},
    ]
    for field in fields:
        assert refused_chat(**field).message.count("SECRET") <= 64 // 6 + 1

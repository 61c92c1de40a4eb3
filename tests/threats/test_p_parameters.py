"""P: parameters out of range, out of the vocabulary, or of somebody else's server."""

import json
from typing import Any

import pytest

from tests.serving import VOCAB_SIZE, Serving
from tests.threats.aftermath import unharmed
from tests.threats.raw_http import answer, post
from tests.threats.refusals import CHAT, COMPLETIONS, refused, served_as_ever

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX_MODEL_LEN = 2048  # of the served model


def each(*values: object) -> pytest.MarkDecorator:
    """One test per value."""
    return pytest.mark.parametrize("value", values, ids=lambda value: repr(value)[:30])


@each(0, -1, 9, 10**9)
async def test_p1_n_is_bounded(served: Serving, value: int) -> None:
    """Not by the client's wish."""
    await refused(served, {"n": value}, param="n", code="invalid_value")


@each(9, 10**9, -1)
async def test_p2_best_of_is_bounded(served: Serving, value: int) -> None:
    """It costs what `n` costs."""
    await refused(served, {"best_of": value}, param="best_of", code="invalid_value")


@each(0, -1, -(2**63))
async def test_p3_max_tokens_is_positive(served: Serving, value: int) -> None:
    """Under both of its names; 0 tokens of a completion are what OpenAI allows."""
    paths = (CHAT, COMPLETIONS) if value else (CHAT,)
    fields = {"max_tokens": value}
    await refused(served, fields, param="max_tokens", code="invalid_value", paths=paths)
    name = "max_completion_tokens"
    await refused(served, {name: value}, param=name, code="invalid_value", paths=(CHAT,))


@each(MAX_MODEL_LEN, 2**31, 2**63 - 1)
async def test_p3_max_tokens_beyond_the_context_is_clamped(served: Serving, value: int) -> None:
    """Clients that ask for the most get what fits."""
    await served_as_ever(served, {"max_tokens": value})


@each({"min_tokens": 11, "max_tokens": 10}, {"min_tokens": MAX_MODEL_LEN}, {"min_tokens": -1})
async def test_p4_min_tokens_fits_below_max_tokens(served: Serving, value: dict[str, Any]) -> None:
    """Also below a `max_tokens` that nobody set."""
    await refused(served, value, param="min_tokens", code="invalid_value")


@each(-0.1, 2.1, 1e308, -1e308)
async def test_p5_temperature_is_in_its_range(served: Serving, value: float) -> None:
    """From 0 to 2."""
    await refused(served, {"temperature": value}, param="temperature", code="invalid_value")


@each(*["1", True, [1], {}])
async def test_p5_temperature_is_a_number(served: Serving, value: object) -> None:
    """A boolean is none."""
    await refused(served, {"temperature": value}, param="temperature", code="invalid_type")


@each(
    ("top_p", 0),
    ("top_p", 1.1),
    ("top_p", -1),
    ("top_k", -2),
    ("top_k", 2**31),
    ("min_p", -0.1),
    ("min_p", 1.1),
    ("top_a", -0.1),
    ("top_a", 1.1),
    ("repetition_penalty", 0),
    ("repetition_penalty", -1),
    ("repetition_penalty", 2.1),
)
async def test_p6_the_samplers_parameters_are_in_their_ranges(
    served: Serving, value: tuple[str, float]
) -> None:
    """Each by its name."""
    name, number = value
    await refused(served, {name: number}, param=name, code="invalid_value")


async def test_p6_top_k_beyond_the_vocabulary_is_the_vocabulary(served: Serving) -> None:
    """As every other server has it."""
    await served_as_ever(served, {"top_k": VOCAB_SIZE * 1000, "temperature": 0.1})


@each(2.1, -2.1, 1e300)
async def test_p7_penalties_are_in_their_ranges(served: Serving, value: float) -> None:
    """From -2 to 2."""
    for name in ("frequency_penalty", "presence_penalty"):
        await refused(served, {name: value}, param=name, code="invalid_value")


@each(21, 10**6, -1)
async def test_p8_logprobs_are_bounded(served: Serving, value: int) -> None:
    """Twenty of a chat, five of a completion."""
    await refused(served, {"logprobs": value}, param="logprobs", paths=(COMPLETIONS,))
    await refused(served, {"logprobs": value}, param="logprobs", paths=(CHAT,))
    fields = {"logprobs": True, "top_logprobs": value}
    await refused(served, fields, param="top_logprobs", paths=(CHAT,))


@each(
    {"-1": 1},
    {str(VOCAB_SIZE): 1},
    {str(2**31): 1},
    {str(2**64): 1},
    {"abc": 1},
    {"1.0": 1},
    {"\u0661": 1},
    {"": 1},
    {"1": 1e9},
    {"1": -101},
    {"1": "1"},
    {"1": None},
    {"1": True},
    {str(index): 1 for index in range(1025)},
    [1],
    "1",
)
async def test_p9_logit_bias_stays_inside_the_vocabulary(served: Serving, value: object) -> None:
    """Or another sequence's row of the same batch would be biased."""
    await refused(served, {"logit_bias": value}, param="logit_bias")


@each(["a"] * 5, [""], "", "x" * 257, "x" * 10**6, ["a", 1], 5, {}, [["a"]], [None])
async def test_p10_stop_is_few_short_strings(served: Serving, value: object) -> None:
    """At most four of at most 256 bytes."""
    await refused(served, {"stop": value}, param="stop")


@each([VOCAB_SIZE], [-1], [2**40], ["a"], [1.0], list(range(65)), 5)
async def test_p11_stop_token_ids_stay_inside_the_vocabulary(
    served: Serving, value: object
) -> None:
    """And are few."""
    fields = {"stop_token_ids": value}
    for path in (CHAT, COMPLETIONS):
        async with unharmed(served):
            body = {"model": "test-model", "prompt": "hi", **fields}
            body["messages"] = [{"role": "user", "content": "hi"}]
            reply = await served.post(path, body)
        assert reply.status == 400
        assert (await reply.json())["error"]["param"].startswith("stop_token_ids")


async def test_p11_bad_words_are_not_served(served: Serving) -> None:
    """And say so."""
    fields = {"bad_words": ["x"]}
    await refused(served, fields, param="bad_words", code="unsupported_parameter")


@each(1.5, 1e30, "1", [1])
async def test_p12_a_seed_is_an_integer_of_64_bit(served: Serving, value: object) -> None:
    """What is not, is refused."""
    await refused(served, {"seed": value}, param="seed")


@each(-1, 0, 2**63 - 1, -(2**63))
async def test_p12_a_negative_seed_counts_from_the_top(served: Serving, value: int) -> None:
    """It is folded into 64 bit."""
    await served_as_ever(served, {"seed": value, "n": 2})


@each(*[[], [[]], [1, "a"], ["a", [1]], {}, 5, True, 1.5, ["a", None], [["a"]], [[[1]]]])
async def test_p13_a_prompt_has_one_of_four_shapes(served: Serving, value: object) -> None:
    """Strings or ids, one or several, not a mixture."""
    for stream in (False, True):
        async with unharmed(served):
            body = {"model": "test-model", "prompt": value, "stream": stream}
            reply = await served.post(COMPLETIONS, body)
        assert reply.status == 400
        assert (await reply.json())["error"]["param"].startswith("prompt")


@each(65, 10**6)
async def test_p13_prompts_are_few(served: Serving, value: int) -> None:
    """A million of them are counted, not run."""
    await refused(served, {"prompt": [""] * value}, param="prompt", paths=(COMPLETIONS,))


@each([-1], [VOCAB_SIZE], [2**40], [2**63 - 1], [0, 1, -5])
async def test_p14_token_ids_stay_inside_the_vocabulary(served: Serving, value: list[int]) -> None:
    """Or the runner would read another's memory."""
    await refused(served, {"prompt": value}, param="prompt", paths=(COMPLETIONS,))


@each("prompt_embeds", "inputs_embeds")
async def test_p15_no_tensor_comes_from_a_client(served: Serving, value: str) -> None:
    """Nothing here would deserialise one."""
    fields = {value: "gASVCwAAAAAAAACMB2J1aWx0aW5z"}
    await refused(served, fields, param=value, code="unsupported_parameter")


@each("nobody", "../../etc/passwd", "http://evil.example/m", "x" * 10**6, "test-model\0", "\n")
async def test_p16_an_unknown_model_is_404(served: Serving, value: str) -> None:
    """It is looked up by name, never by path, and echoed in part."""
    fields = {"model": value}
    await refused(served, fields, param=None, code="model_not_found", status=404)


@each(None, "", 5, ["test-model"], {})
async def test_p16_no_model_is_400(served: Serving, value: object) -> None:
    """There is no default."""
    await refused(served, {"model": value}, param="model")


async def test_p16_a_missing_model_is_named(served: Serving) -> None:
    """As the field that is required."""
    async with unharmed(served):
        reply = await served.post(COMPLETIONS, {"prompt": "hi"})
    assert reply.status == 400
    assert (await reply.json())["error"]["param"] == "model"


async def test_p17_other_servers_switches_do_nothing(served: Serving) -> None:
    """No address is called, no code is loaded, on any level."""
    evil = {
        "api_base": "http://127.0.0.1:1/v1",
        "base_url": "http://127.0.0.1:1/v1",
        "user_config": {"api_base": "http://127.0.0.1:1"},
        "extra_body": {"custom_logit_processor": "80049"},
        "lora_request": {"path": "/etc/passwd"},
    }
    await served_as_ever(served, {**evil, "metadata": {"api_base": "http://127.0.0.1:1"}})


@each("custom_logit_processor", "logits_processors")
async def test_p17_code_is_refused(served: Serving, value: str) -> None:
    """By name."""
    fields = {value: "gASVCwAAAAAAAACMB2J1aWx0aW5z"}
    await refused(served, fields, param=value, code="unsupported_parameter")


@each("chat_template", "chat_template_kwargs")
async def test_p19_a_client_brings_no_template(served: Serving, value: str) -> None:
    """Not even arguments for one."""
    for content in ("{{ x }}", {"tokenize": False, "chat_template": "{{ x }}"}):
        fields = {value: content}
        await refused(served, fields, param=value, code="unsupported_parameter")


@each("", "x" * 65, "x" * 10**6, "a b", "a\0", "\u00e4", 5)
async def test_p20_a_cache_salt_is_a_short_name(served: Serving, value: object) -> None:
    """64 letters, digits, dashes and underscores at most."""
    await refused(served, {"cache_salt": value}, param="cache_salt")


@each("gen-1", "req-1", "x" * 8000, "tcp://127.0.0.1:1", "' OR 1=1 --", "../..")
async def test_p21_a_request_id_of_the_client_names_nothing_here(
    served: Serving, value: str
) -> None:
    """Two requests under one id are two, each under an id of ours."""
    async with unharmed(served, num_events=2):
        first = await answer(served.port, post(f"X-Request-Id: {value}"))
        second = await answer(served.port, post(f"X-Request-Id: {value}"))
    assert first.status == second.status == 200
    ids = {reply.headers["x-request-id"] for reply in (first, second)}
    assert len(ids) == 2
    assert all(identifier.startswith("req-") and identifier != value for identifier in ids)


async def test_p22_switches_of_slots_are_ignored(served: Serving) -> None:
    """No client chooses where its text is kept."""
    fields = {"n_discard": -5, "cache_prompt": True, "id_slot": -1, "slot_id": 3, "n_keep": -9}
    await served_as_ever(served, fields)


@each(*[5, "x", [], True, {"include_usage": 1}, {"include_usage": "true"}])
async def test_p23_stream_options_are_an_object(served: Serving, value: object) -> None:
    """Of booleans."""
    for path in (CHAT, COMPLETIONS):
        body = {"model": "test-model", "prompt": "hi", "stream": True, "stream_options": value}
        body["messages"] = [{"role": "user", "content": "hi"}]
        async with unharmed(served):
            reply = await served.post(path, body)
        assert reply.status == 400
        assert (await reply.json())["error"]["param"].startswith("stream_options")


async def test_p23_stream_options_without_a_stream_are_ignored(served: Serving) -> None:
    """Clients keep them when they switch streaming off."""
    await served_as_ever(served, {"stream_options": {"include_usage": True}})


async def test_p24_labels_are_cut_and_metadata_is_not_logged(served: Serving) -> None:
    """A megabyte of user is no megabyte of log."""
    secret = "sk-planted-in-metadata"
    fields = {"user": "u" * 10**6, "metadata": {"k" * 1000: "v" * 10**5, "password": secret}}
    await served_as_ever(served, fields)
    for line in served.usage.lines[-8:]:
        assert len(line) <= 4096
        assert secret.encode() not in line
        assert len(json.loads(line)["user_id"] or "") <= 128

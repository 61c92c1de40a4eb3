"""J: bodies that are no JSON, or JSON that only some parsers take."""

import json
import random

import orjson
import pytest

from tests.serving import Serving
from tests.threats.aftermath import unharmed
from tests.threats.refusals import (
    CHAT,
    COMPLETIONS,
    error_of,
    post_bytes,
    refused,
    served_as_ever,
    variants,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = b'{"model": "test-model", "prompt": "hi", "messages": [{"role": "user", "content": "hi"}]'
PATHS = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])


async def refused_as_json(served: Serving, path: str, body: bytes) -> None:
    """400 `invalid_json`, whatever was asked for."""
    async with unharmed(served):
        reply = await post_bytes(served, path, body)
    error = await error_of(reply)
    assert (reply.status, error["code"]) == (400, "invalid_json"), error


def with_field(name: str, value: bytes) -> bytes:
    """A good request with one more field."""
    return b'%b, "%b": %b}' % (GOOD, name.encode(), value)


@PATHS
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        GOOD,
        GOOD + b"}}",
        GOOD + b"} x",
        GOOD.replace(b'"', b"'") + b"}",
        b"\xef\xbb\xbf" + GOOD + b"}",
        (GOOD + b"}").decode().encode("utf-16"),
        b"null",
        b"5",
        b'"text"',
        b"[]",
        b"[" + GOOD + b"}]",
        b"{,}",
        b"{'a': 1}",
        b"// comment\n{}",
        b"\x00",
    ],
)
async def test_j1_what_is_no_json_object_is_refused(
    served: Serving, path: str, body: bytes
) -> None:
    """Empty, cut, with a tail, a mark, another encoding or another root."""
    await refused_as_json(served, path, body)


@PATHS
@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\xaf"]
)
async def test_j2_invalid_utf_8_is_refused(served: Serving, path: str, text: bytes) -> None:
    """Cut, overlong, out of range, and a surrogate."""
    await refused_as_json(served, path, with_field("user", b'"%b"' % text))


@PATHS
@pytest.mark.parametrize("depth", [64, 100_000])
@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}")])
async def test_j3_deep_nesting_is_refused(
    served: Serving, path: str, depth: int, left: bytes, right: bytes
) -> None:
    """One level too many, and far too many, also where the field is ignored."""
    value = left * depth + b"1" + right * depth
    await refused_as_json(served, path, with_field("whatever", value))


@PATHS
@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity", b"nan", b"inf"])
async def test_j4_values_that_are_no_numbers_are_refused(
    served: Serving, path: str, value: bytes
) -> None:
    """JSON has no such literals."""
    await refused_as_json(served, path, with_field("temperature", value))


@PATHS
@pytest.mark.parametrize("value", [b"1e999", b"-1e999", b"1" + b"0" * 400 + b".5"])
async def test_j5_numbers_that_overflow_are_refused(
    served: Serving, path: str, value: bytes
) -> None:
    """No infinity comes in by the back door."""
    async with unharmed(served):
        reply = await post_bytes(served, path, with_field("temperature", value))
    assert reply.status == 400
    assert (await error_of(reply))["code"] in {"invalid_json", "invalid_value"}


@PATHS
async def test_j6_an_integer_of_thousands_of_digits_is_refused(served: Serving, path: str) -> None:
    """It is not even computed."""
    async with unharmed(served):
        reply = await post_bytes(served, path, with_field("seed", b"9" * 5000))
    assert reply.status == 400
    assert (await error_of(reply))["code"] in {"invalid_json", "invalid_value", "invalid_type"}


@pytest.mark.parametrize("field", ["n", "max_tokens", "seed", "top_k"])
@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
async def test_j7_integers_beyond_64_bit_are_refused(
    served: Serving, field: str, value: int
) -> None:
    """A parser that makes floats of them must not lose the field's name."""
    for path, body in variants({field: 0}):
        text = orjson.dumps(body).replace(b'"%b":0' % field.encode(), f'"{field}":{value}'.encode())
        async with unharmed(served):
            reply = await post_bytes(served, path, text)
        assert reply.status == 400
        assert (await error_of(reply))["param"] == field


@pytest.mark.parametrize("field", ["n", "max_tokens", "seed", "top_k", "min_tokens"])
@pytest.mark.parametrize("value", [True, "5", 5.0, 1e3, [], {}])
async def test_j8_what_is_nearly_an_integer_is_refused(
    served: Serving, field: str, value: object
) -> None:
    """A boolean, a string, a float."""
    await refused(served, {field: value}, param=field, code="invalid_type")


@PATHS
@pytest.mark.parametrize("field", ["user", "stop", "model", "prompt", "whatever"])
@pytest.mark.parametrize("text", [rb'"\ud800"', rb'"a\udc00b"', rb'"\ud83d\u0041"'])
async def test_j9_lone_surrogates_are_refused(
    served: Serving, path: str, field: str, text: bytes
) -> None:
    """No tokenizer and no log could take them."""
    await refused_as_json(served, path, with_field(field, text))


async def test_j10_nul_is_text_in_prompts_and_nothing_in_names(served: Serving) -> None:
    """A prompt may hold any character, a name may not."""
    await served_as_ever(served, {"prompt": "a\0b"}, (COMPLETIONS,))
    await served_as_ever(served, {"messages": [{"role": "user", "content": "a\0b"}]}, (CHAT,))
    messages = [{"role": "user", "name": "a\0b", "content": "hi"}]
    await refused(served, {"messages": messages}, param="messages[0].name", paths=(CHAT,))


@PATHS
async def test_j11_the_last_of_two_equal_keys_counts_everywhere(served: Serving, path: str) -> None:
    """The model that is run, priced, answered and logged is one."""
    twice = b'{"model": "nobody", ' + GOOD[1:] + b"}"
    async with unharmed(served, num_events=1):
        reply = await post_bytes(served, path, twice)
    assert (await reply.json())["model"] == "test-model"
    assert served.usage.events[-2]["model"] == "test-model"
    async with unharmed(served):
        reply = await post_bytes(served, path, with_field("model", b'"nobody"'))
    assert reply.status == 404


@PATHS
async def test_j12_an_object_of_very_many_keys_harms_nobody(served: Serving, path: str) -> None:
    """Unknown ones are ignored; a body that is too large is not parsed."""
    keys = b", ".join(b'"%d": 0' % index for index in range(200_000))
    async with unharmed(served, num_events=1):
        assert (await post_bytes(served, path, b"%b, %b}" % (GOOD, keys))).status == 200
    keys = b", ".join(b'"%d": 0' % index for index in range(1_000_000))
    async with unharmed(served):
        assert (await post_bytes(served, path, b"%b, %b}" % (GOOD, keys))).status == 413


async def test_j13_unknown_fields_are_ignored(served: Serving) -> None:
    """As OpenAI's clients of tomorrow need it."""
    await served_as_ever(served, {"a_field_of_tomorrow": {"a": [1]}, "": None, "x" * 10_000: 1})


@pytest.mark.parametrize(
    "key", ["__proto__", "__class__", "self", "model_config", "cls", "__dict__"]
)
async def test_j14_keys_of_the_language_are_inert(served: Serving, key: str) -> None:
    """They are unknown fields, on every level."""
    await served_as_ever(served, {key: {key: 1}, "stream_options": {key: 1}})


@PATHS
@pytest.mark.parametrize("content_type", ["text/plain", "application/jsonx", "text/json", "*/*"])
async def test_j15_another_content_type_is_415(
    served: Serving, path: str, content_type: str
) -> None:
    """Even if the body is JSON."""
    async with unharmed(served):
        reply = await post_bytes(served, path, GOOD + b"}", content_type)
    assert reply.status == 415
    assert (await error_of(reply))["code"] == "unsupported_media_type"


@PATHS
async def test_j15_a_charset_beside_the_content_type_is_fine(served: Serving, path: str) -> None:
    """Many clients send one."""
    async with unharmed(served, num_events=1):
        content_type = "Application/JSON; charset=utf-8"
        assert (await post_bytes(served, path, GOOD + b"}", content_type)).status == 200


@PATHS
async def test_j_random_damage_never_ends_in_a_server_error(served: Serving, path: str) -> None:
    """Whatever byte is changed, the answer is served or is the client's fault."""
    rng = random.Random(0)  # noqa: S311 - the same damage every time
    body = json.dumps(
        {**next(variants({}, (path,)))[1], "temperature": 1.5, "stop": ["x"]}
    ).encode()
    for _ in range(60):
        damaged = bytearray(body)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.choice(b'{}[]",:0e-\\u\x00\xff')
        assert (await post_bytes(served, path, bytes(damaged))).status in {200, 400, 404}

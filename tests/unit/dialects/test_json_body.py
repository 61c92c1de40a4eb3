"""Bodies: what is not one plain JSON object is refused, by id of the table of bad inputs."""

import orjson
import pytest

from provider_core.dialects.json_body import MAX_DEPTH, parse_json_object
from provider_core.errors import InvalidRequest


def refusal(body: bytes) -> InvalidRequest:
    """The refusal of a body."""
    with pytest.raises(InvalidRequest) as raised:
        parse_json_object(body)
    assert raised.value.code == "invalid_json"
    return raised.value


def nested(depth: int) -> bytes:
    """An object with arrays in it, `depth` levels in all."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b'{"model":',
        b'{"model": "m"} x',
        b"{'model': 'm'}",
        b'{"model": "m",}',
        b'\xef\xbb\xbf{"model": "m"}',
        '{"model": "m"}'.encode("utf-16"),
        b"5",
        b'"text"',
        b"null",
        b"[]",
        b'[{"model": "m"}]',
    ],
)
def test_j1_only_one_json_object_is_a_body(body: bytes) -> None:
    """J1: empty, truncated, trailing garbage, BOM, UTF-16, scalar and array roots."""
    refusal(body)


@pytest.mark.parametrize("raw", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"])
def test_j2_invalid_utf8_is_refused(raw: bytes) -> None:
    """J2: invalid UTF-8, raw surrogates among it."""
    refusal(b'{"a": "' + raw + b'"}')


def test_j3_depth_is_limited() -> None:
    """J3: the limit is allowed, one more is not, and neither is a stack's worth."""
    assert parse_json_object(nested(MAX_DEPTH))
    for depth in (MAX_DEPTH + 1, 1000, 100_000, 1_000_000):
        refusal(nested(depth))


def test_j3_siblings_and_brackets_in_strings_are_not_depth() -> None:
    """J3: only nesting counts, however many brackets there are and wherever quotes stand."""
    body = {
        "wide": [[[]] for _ in range(500)],
        "text": "[" * 500 + '"' + "{" * 500 + "\\" + '\\"[',
        '[[[["\\': {'\\\\"{{{{': "\\"},
    }
    assert parse_json_object(orjson.dumps(body)) == body


def test_j3_depth_after_a_tricky_string_still_counts() -> None:
    """J3: a string that ends in backslashes cannot hide what follows it."""
    for string in (b'"\\\\"', b'"\\\\\\""', b'"a\\\\\\\\"', b'"\\u005c\\""'):
        deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
        refusal(b'{"a":' + string + b',"b":' + deep + b"}")


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"nan"])
def test_j4_no_numbers_outside_json(literal: bytes) -> None:
    """J4: NaN and the infinities are no JSON."""
    refusal(b'{"temperature": ' + literal + b"}")


def test_j5_numbers_that_overflow_are_refused() -> None:
    """J5: a number beyond a double is not infinity."""
    refusal(b'{"temperature": 1e999}')


def test_j6_huge_integers_are_refused() -> None:
    """J6: 5,000 digits neither raise anything else nor cost time."""
    refusal(b'{"n": ' + b"1" * 5000 + b"}")


def test_j9_lone_surrogates_are_refused() -> None:
    """J9: half a surrogate pair is no text; a whole pair is."""
    for text in (b"\\ud800", b"\\udc00", b"\\udc00\\ud800", b"\\ud83dx"):
        refusal(b'{"prompt": "' + text + b'"}')
    assert parse_json_object(b'{"prompt": "\\ud83d\\ude00"}') == {"prompt": "\U0001f600"}


def test_j10_nul_in_text_is_text() -> None:
    """J10: NUL is a character like others."""
    assert parse_json_object(b'{"prompt": "a\\u0000b"}') == {"prompt": "a\0b"}


def test_j11_the_last_of_duplicate_keys_wins() -> None:
    """J11: one parse, one winner."""
    assert parse_json_object(b'{"model": "a", "model": "b"}') == {"model": "b"}


def test_j12_very_many_keys_are_only_many_keys() -> None:
    """J12: unknown keys by the hundred thousand are read and ignored."""
    fields = {f"key{index}": index for index in range(200_000)}
    assert parse_json_object(orjson.dumps(fields)) == fields


def test_j14_python_names_are_plain_keys() -> None:
    """J14: `__proto__` and `__class__` mean nothing."""
    body = b'{"__proto__": {"x": 1}, "__class__": "y", "self": 1}'
    assert parse_json_object(body) == {"__proto__": {"x": 1}, "__class__": "y", "self": 1}


def test_the_message_says_where_and_repeats_nothing() -> None:
    """The place of the mistake is named; neither the parser's text nor a value is shown."""
    message = refusal(b'{"model": "m",\n "user": secret}').message
    assert "line 2, column" in message
    assert "secret" not in message
    assert "expected" not in message


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"model": "m", "temperature": NaN}', "temperature"),
        (b'{"model": "m", "top_p": -Infinity, "n": 1}', "top_p"),
        (b'{"seed" :1e999}', "seed"),
        (b'{"messages": [{"role": "user", "content": "a: b\\ud800"}]}', "content"),
        ('{"user": "\u6f22\u5b57", "stop": ["x", "\\udc00"]}'.encode(), "stop"),
    ],
)
def test_what_is_no_json_is_placed_by_its_field(body: bytes, name: str) -> None:
    """J4, J5, J9: a bad number or text is found by the field's name, not by its column."""
    assert refusal(body).message.endswith(f"in or after the field {name!r}")


def test_no_text_of_a_client_is_taken_for_a_field() -> None:
    """Only what is written as a name is repeated."""
    for body in (b'["secret" NaN]', b'{"a b": NaN}', b'{"' + b"a" * 65 + b'": NaN}'):
        assert "field" not in refusal(body).message

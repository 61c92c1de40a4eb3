"""One ASCII JSON object a line, whatever is in it."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.json_lines import encode_line, format_timestamp

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(codec=None)), values, max_size=5))
def test_any_fields_make_one_ascii_line(fields: dict[str, Any]) -> None:
    """Surrogates, controls, NaN, bytes and huge integers included; never an exception."""
    line = encode_line(fields)
    assert line.isascii()
    assert not re.search(rb"[\x00-\x1f\x7f]", line[:-1])
    assert line.endswith(b"}\n")
    assert isinstance(json.loads(line), dict)


def test_plain_values_survive() -> None:
    """What JSON can hold comes back equal."""
    fields = {"a": "Zoë \u2028 \U0001f600 \x7f", "b": [1, 2.5, None, True], "c": {"d": 2**60}}
    assert json.loads(encode_line(fields)) == fields


@pytest.mark.parametrize("number", [10**20, 10**5000], ids=["20 digits", "5000 digits"])
def test_an_integer_beyond_64_bits_does_not_lose_the_rest(number: int) -> None:
    """The other fields are written."""
    assert json.loads(encode_line({"big": number, "event": "x.y"}))["event"] == "x.y"


def test_a_foreign_object_shows_its_type_only() -> None:
    """Its text could be a secret."""

    class Secret:
        def __repr__(self) -> str:
            return "canary"

    line = encode_line({"a": Secret(), "b": {"c": [Secret(), float("nan")]}})
    assert b"canary" not in line
    assert json.loads(line)["a"] == "<Secret>"


def test_a_cycle_does_not_lose_the_rest() -> None:
    """A structure that contains itself is named by its type."""
    cycle: list[Any] = []
    cycle.append(cycle)
    assert json.loads(encode_line({"a": cycle, "b": 1})) == {"a": "<list>", "b": 1}


@pytest.mark.parametrize(
    ("unix_s", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1795214401.482913, "2026-11-20T22:40:01.482913Z"),
        (1795214401.9999999, "2026-11-20T22:40:02.000000Z"),
    ],
)
def test_timestamps_have_six_decimals(unix_s: float, text: str) -> None:
    """RFC 3339 in UTC, rounded and carried."""
    assert format_timestamp(unix_s) == text

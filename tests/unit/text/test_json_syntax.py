"""What counts as JSON, and what everybody can read."""

import json

import pytest

from provider_core.text.json_syntax import is_json, is_readable_object

HUGE = ["1e999", "-1E+400", "9" * 400, "9" * 5000]


@pytest.mark.parametrize("text", ["{}", ' {"a": [1, null, "\\u00e9"]} ', '{"a": 1e308}'])
def test_objects(text: str) -> None:
    """With numbers that floats hold."""
    assert is_json(text)
    assert is_readable_object(text)


@pytest.mark.parametrize("text", ["1e3", "null", "[]", '"{}"', "-0"])
def test_values_that_are_no_objects(text: str) -> None:
    """JSON all the same."""
    assert is_json(text)
    assert not is_readable_object(text)


@pytest.mark.parametrize("number", HUGE)
def test_numbers_beyond_floats_are_json_that_not_all_can_read(number: str) -> None:
    """Wherever they stand."""
    assert is_json(f'{{"a": [{number}]}}')
    assert not is_readable_object(f'{{"a": [{number}]}}')


@pytest.mark.parametrize(
    "text", ["", "{", "{}{}", '{"a": NaN}', "-Infinity", "{'a': 1}", '"\n"', "01", "[" * 100_000]
)
def test_what_is_no_json(text: str) -> None:
    """What Python alone would take, included, and what is nested without end."""
    assert not is_json(text)
    assert not is_readable_object(text)


def test_python_itself_fails_on_some_numbers() -> None:
    """Which is why they are not sent within an answer."""
    with pytest.raises(ValueError, match="digits"):
        json.loads(HUGE[-1])

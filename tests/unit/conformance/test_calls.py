"""Calls of tools are judged as OpenRouter judges them, constrained texts under Draft 7."""

import pytest

from provider_core.conformance.checks.schemas import CITY, check_json
from provider_core.conformance.checks.tools import check_calls
from provider_core.conformance.verdict import Failed

BAD_CALLS = {
    "InvalidJson": ("get_weather", '{"city": '),
    "UnknownName": ("get_whether", '{"city": "Rome"}'),
    "SchemaMismatch: get_weather": ("get_weather", '{"city": 7}'),
    "get_time takes nothing": ("get_time", '{"city": "Rome"}'),
}


def test_good_calls_are_counted() -> None:
    """With arguments and without."""
    assert check_calls([("get_weather", '{"city": "Rome"}'), ("get_time", "{}")]) == 2


@pytest.mark.parametrize("reason", BAD_CALLS)
def test_bad_calls_are_named_in_openrouters_words(reason: str) -> None:
    """A call that fails one of the three tests counts against a provider."""
    with pytest.raises(Failed) as caught:
        check_calls([BAD_CALLS[reason]])
    assert reason in caught.value.reason


def test_texts_must_be_json_and_conform() -> None:
    """What conforms is given back on one line."""
    good = '{\n "name": "Rome",\n "population": 3\n}'
    assert check_json(good, CITY) == '{"name":"Rome","population":3}'
    for bad in ("Rome is a city.", '{"name": "Rome"}', '{"name": "Rome", "population": "3"}'):
        with pytest.raises(Failed):
            check_json(bad, CITY)

"""Schemas that would cost the compiler too much are refused before it sees them."""

from typing import Any

import pytest

from provider_core.errors import InvalidRequest
from provider_core.text.grammar_finiteness import Schema, is_finite
from provider_core.text.grammar_intersections import MAX_INTERSECTED
from provider_core.text.grammar_schema import check_schema

_PATTERNS = [{"type": "string", "pattern": f"[a-m]{{{i}}}$"} for i in range(MAX_INTERSECTED + 1)]
_CHAIN = {
    f"{i}": {**each, "allOf": [{"$ref": f"#/$defs/{i + 1}"}]} for i, each in enumerate(_PATTERNS)
}
_TOO_MUCH: dict[str, dict[str, Any]] = {
    "allOf": {"allOf": _PATTERNS},
    "option": {"anyOf": [{"type": "null"}, {"allOf": _PATTERNS}]},
    "options": {"allOf": [{"anyOf": [each, {"type": "null"}]} for each in _PATTERNS]},
    "properties": {"allOf": [{"properties": {"a": each}} for each in _PATTERNS]},
    "items": {"allOf": [{"items": each} for each in _PATTERNS]},
    "prefixItems": {"allOf": [{"prefixItems": [each]} for each in _PATTERNS]},
    "prefixItems and items": {
        "allOf": [{"prefixItems": [_PATTERNS[0]]}, *({"items": each} for each in _PATTERNS[1:])]
    },
    "additionalProperties": {"allOf": [{"additionalProperties": each} for each in _PATTERNS]},
    "patternProperties": {
        "properties": {"a": _PATTERNS[0]},
        "allOf": [{"patternProperties": {"^a": each}} for each in _PATTERNS[1:]],
    },
    "$ref": {"$ref": "#/$defs/0", "$defs": {**_CHAIN, f"{len(_PATTERNS)}": {}}},
    "formats": {
        "allOf": [{"type": "string", "format": "email", "pattern": f".{{{i}}}"} for i in range(3)]
    },
    "combinations": {
        "allOf": [{"anyOf": [{"const": f"{i}{j}"} for j in range(9)]} for i in range(5)]
    },
    "multipleOf": {"multipleOf": 1_000_003},
    "digits": {"type": "number", "multipleOf": 0.12345},
    "multiples": {"allOf": [{"multipleOf": 7919}, {"multipleOf": 7907}]},
}


@pytest.mark.parametrize("schema", _TOO_MUCH.values(), ids=_TOO_MUCH)
def test_too_much_that_holds_for_one_value_is_refused(schema: dict[str, Any]) -> None:
    """However it comes together."""
    with pytest.raises(InvalidRequest) as caught:
        check_schema(schema, param="schema", strict=True)
    assert caught.value.code == "schema_too_complex"


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"pattern": "a$"}, {"pattern": "^b"}]},
        {"anyOf": _PATTERNS},
        {"properties": {f"{i}": each for i, each in enumerate(_PATTERNS)}},
        {"allOf": [{"properties": {f"{i}": each}} for i, each in enumerate(_PATTERNS)]},
        {"anyOf": [{"properties": {"id": each}} for each in _PATTERNS]},
        {"anyOf": [{"const": i, "pattern": f"{i}"} for i in range(900)]},
        {
            "allOf": [{"$ref": "#/$defs/base"}],
            "properties": {"children": {"items": {"$ref": "#"}}},
            "$defs": {"base": {"properties": {"id": {"pattern": "^[a-z]$"}}}},
        },
        {"multipleOf": 0.01},
        {"multipleOf": 10_000},
        {"allOf": [{"multipleOf": 3}, {"multipleOf": 0.5}]},
    ],
    ids=range(10),
)
def test_what_holds_for_different_values_adds_up_to_nothing(schema: dict[str, Any]) -> None:
    """Nor do a few together."""
    check_schema(schema, param="schema", strict=True)


class Counting(dict[str, Schema]):
    """Definitions that count how often one is looked at."""

    num_looks = 0

    def __getitem__(self, name: str) -> Schema:
        """Count, and answer."""
        self.num_looks += 1
        return super().__getitem__(name)


@pytest.mark.parametrize("step", [1, -1])
def test_whether_a_schema_ends_is_found_in_time_linear_in_its_references(step: int) -> None:
    """In whatever order a chain of them stands there."""
    names = range(1000)[::step]
    definitions = Counting({f"{i}": {"$ref": f"#/$defs/{i + 1}"} for i in names})
    assert not is_finite({"$ref": "#/$defs/0"}, definitions)
    definitions["1000"] = {"type": "null"}
    definitions.num_looks = 0
    assert is_finite({"$ref": "#/$defs/0"}, definitions)
    assert definitions.num_looks <= 3 * len(definitions)

"""Google's schemas as JSON Schema, and that nothing of theirs is lost on the way."""

from typing import Any

import jsonschema_rs
import pytest
from google.genai import types

from provider_core.dialects.google.schemas import to_json_schema
from provider_core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "STRING"}, {"type": "string"}),
        ({"type": "integer", "format": "int32"}, {"type": "integer", "format": "int32"}),
        ({"type": "TYPE_UNSPECIFIED"}, {}),
        ({"type": "STRING", "nullable": True}, {"type": ["string", "null"]}),
        (
            {"type": "STRING", "enum": ["a"], "nullable": True},
            {"type": ["string", "null"], "enum": ["a", None]},
        ),
        ({"type": "STRING", "nullable": False}, {"type": "string"}),
        ({"type": "INTEGER", "enum": ["1", "2"]}, {"type": "integer", "enum": [1, 2]}),
        (
            {"type": "INTEGER", "enum": [f"{-(2**63)}", f"{2**64 - 1}"]},
            {"type": "integer", "enum": [-(2**63), 2**64 - 1]},
        ),
        (
            {"anyOf": [{"type": "STRING"}, {"type": "NUMBER"}], "nullable": True},
            {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]},
        ),
        (
            {"type": "ARRAY", "items": {"type": "BOOLEAN"}, "minItems": "1", "max_items": 3},
            {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
        ),
        (
            {"type": "STRING", "minLength": 1, "maxLength": 5, "pattern": "^a", "example": "ab"},
            {
                "type": "string",
                "minLength": 1,
                "maxLength": 5,
                "pattern": "^a",
                "examples": ["ab"],
            },
        ),
        ({"type": "NUMBER", "minimum": 0, "maximum": 1.5}, None),
        ({"type": "OBJECT", "additionalProperties": {"type": "STRING"}}, None),
        ({"type": "OBJECT", "additionalProperties": False}, None),
        (
            {"ref": "#/$defs/a", "defs": {"a": {"type": "STRING"}}},
            {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
        ),
    ],
)
def test_every_keyword_is_converted(schema: Any, expected: Any) -> None:
    """Types in lower case; counts as numbers; an enum of the values' type."""
    converted = to_json_schema(schema, "s")
    if expected is None:
        expected = {**schema, "type": schema["type"].lower()}
        if isinstance(expected.get("additionalProperties"), dict):
            expected["additionalProperties"] = {"type": "string"}
    assert converted == expected
    jsonschema_rs.meta.validate(converted)


def test_properties_come_in_the_order_that_was_asked_for() -> None:
    """Names that are not there are skipped, others follow; names of keywords are mere names."""
    schema = {
        "type": "OBJECT",
        "properties": {name: {"type": "STRING"} for name in ("any_of", "b", "nullable", "type")},
        "propertyOrdering": ["type", "missing", "b", "type"],
        "required": ["b"],
    }
    converted = to_json_schema(schema, "s")

    assert list(converted["properties"]) == ["type", "b", "any_of", "nullable"]
    assert converted["required"] == ["b"]
    assert "propertyOrdering" not in converted


def test_the_schemas_that_the_package_makes_are_understood() -> None:
    """Every field of its type is either converted or without effect on what is valid."""
    known = {"propertyOrdering", "nullable", "example", "defs", "ref"}
    schema = types.Schema(type=types.Type.OBJECT, min_properties=1, max_properties=2)
    sent = schema.model_dump(mode="json", by_alias=True, exclude_none=True)
    fields = {field.alias or name for name, field in types.Schema.model_fields.items()}
    one_of_each: dict[str, Any] = {
        "type": "STRING",
        "anyOf": [{}],
        "items": {},
        "properties": {},
        "required": [],
        "enum": [],
        "additionalProperties": {},
        "title": "t",
        "description": "d",
        "default": 1,
        "format": "f",
        "pattern": "p",
        "minimum": 1,
        "maximum": 1,
        **dict.fromkeys(
            ["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"], 1
        ),
    }

    assert to_json_schema(sent, "s") == {"type": "object", "minProperties": 1, "maxProperties": 2}
    assert fields == one_of_each.keys() | known
    assert to_json_schema(one_of_each, "s").keys() == one_of_each.keys()


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        (5, "s"),
        ({"type": 5}, "s.type"),
        ({"type": "OBJECT", "properties": []}, "s.properties"),
        ({"type": "OBJECT", "properties": {"a": "STRING"}}, "s.properties.a"),
        ({"items": []}, "s.items"),
        ({"anyOf": {}}, "s.anyOf"),
        ({"any_of": [1]}, "s.anyOf[0]"),
        ({"required": "a"}, "s.required"),
        ({"enum": [1]}, "s.enum"),
        ({"type": "INTEGER", "enum": ["one"]}, "s.enum"),
        ({"type": "INTEGER", "enum": [f"{2**64}"]}, "s.enum"),
        ({"type": "INTEGER", "enum": [f"{-(2**63) - 1}"]}, "s.enum"),
        ({"type": "NUMBER", "enum": ["nan"]}, "s.enum"),
        ({"type": "NUMBER", "enum": ["1e400"]}, "s.enum"),
        ({"minItems": "one"}, "s.minItems"),
        ({"minItems": True}, "s.minItems"),
        ({"propertyOrdering": 5, "properties": {}}, "s.propertyOrdering"),
        ({"defs": []}, "s.defs"),
        ({"defs": {"a": 5}}, "s.defs.a"),
    ],
)
def test_bug_10_what_is_no_schema_is_named(schema: Any, param: str) -> None:
    """However deep it stands."""
    with pytest.raises(InvalidRequest) as caught:
        to_json_schema(schema, "s")
    assert caught.value.param == param

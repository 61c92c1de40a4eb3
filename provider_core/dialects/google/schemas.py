"""Google's schemas to JSON Schema.

Google's `Schema` is a subset of OpenAPI 3.0: types in upper case, `nullable`, an `enum` of strings,
an order of properties. Limits of lengths and counts may come as strings, which is how JSON writes
64-bit integers of protocol buffers.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from provider_core.dialects.google.fields import get
from provider_core.dialects.validation import MAX_ECHO, bad_value, wrong_type

_TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_AS_THEY_ARE = ("title", "description", "default", "format", "pattern", "minimum", "maximum")


def to_json_schema(schema: Any, param: str) -> dict[str, Any]:
    """Convert a schema.

    Args:
        schema: Any JSON value.
        param: Where it stands, for errors.

    Raises:
        InvalidRequest: It, or a part of it, is no schema.
    """
    if not isinstance(schema, dict):
        raise wrong_type(param, "an object", schema)
    converted: dict[str, Any] = {}
    schema_type = get(schema, "type")
    if schema_type is not None:
        name = schema_type.lower() if isinstance(schema_type, str) else ""
        if name != "type_unspecified":
            if name not in _TYPES:
                raise bad_value(
                    f"{param}.type", f"must be one of {', '.join(map(str.upper, _TYPES))}"
                )
            converted["type"] = name
    converted |= {key: schema[key] for key in _AS_THEY_ARE if schema.get(key) is not None}
    for key in _COUNTS:
        if (count := get(schema, key)) is not None:
            converted[key] = _count(count, f"{param}.{key}")
    if (example := schema.get("example")) is not None:
        converted["examples"] = [example]
    if (enum := schema.get("enum")) is not None:
        converted["enum"] = _enum(enum, converted.get("type"), f"{param}.enum")
    if (required := schema.get("required")) is not None:
        converted["required"] = _names(required, f"{param}.required")
    converted |= _parts(schema, param)
    return _nullable(converted) if schema.get("nullable") is True else converted


def _parts(schema: Mapping[str, Any], param: str) -> dict[str, Any]:
    """The schemas inside a schema."""
    converted: dict[str, Any] = {}
    if (items := schema.get("items")) is not None:
        converted["items"] = to_json_schema(items, f"{param}.items")
    if (any_of := get(schema, "anyOf")) is not None:
        if not isinstance(any_of, list):
            raise wrong_type(f"{param}.anyOf", "an array", any_of)
        converted["anyOf"] = [
            to_json_schema(part, f"{param}.anyOf[{i}]") for i, part in enumerate(any_of)
        ]
    if (properties := schema.get("properties")) is not None:
        converted["properties"] = _properties(schema, properties, param)
    additional = get(schema, "additionalProperties")
    if isinstance(additional, dict):
        additional = to_json_schema(additional, f"{param}.additionalProperties")
    if additional is not None:
        converted["additionalProperties"] = additional
    if (reference := schema.get("ref", schema.get("$ref"))) is not None:
        converted["$ref"] = reference
    definitions = schema.get("defs", schema.get("$defs"))
    if definitions is not None:
        if not isinstance(definitions, dict):
            raise wrong_type(f"{param}.defs", "an object", definitions)
        converted["$defs"] = {
            name: to_json_schema(part, f"{param}.defs.{name[:MAX_ECHO]}")
            for name, part in definitions.items()
        }
    return converted


def _properties(schema: Mapping[str, Any], properties: Any, param: str) -> dict[str, Any]:
    """Properties in the order that was asked for, which is the order they are written in."""
    if not isinstance(properties, dict):
        raise wrong_type(f"{param}.properties", "an object", properties)
    ordering = get(schema, "propertyOrdering")
    names = list(properties)
    if ordering is not None:
        first = [name for name in _names(ordering, f"{param}.propertyOrdering") if name in names]
        names = [*dict.fromkeys(first), *(name for name in names if name not in set(first))]
    return {
        name: to_json_schema(properties[name], f"{param}.properties.{name[:MAX_ECHO]}")
        for name in names
    }


def _enum(values: Any, schema_type: str | None, param: str) -> list[Any]:
    """An enum's values are strings, whatever the type."""
    names = _names(values, param)
    if schema_type not in {"integer", "number"}:
        return names
    convert = _integer if schema_type == "integer" else _number
    try:
        return [convert(name) for name in names]
    except ValueError:
        raise bad_value(param, f"must hold values of the type {schema_type}") from None


def _integer(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**64:
        raise ValueError(text)  # JSON is not written with larger ones here
    return value


def _number(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(text)  # JSON has no such number
    return value


def _names(values: Any, param: str) -> list[str]:
    if not isinstance(values, list):
        raise wrong_type(param, "an array of strings", values)
    for value in values:
        if not isinstance(value, str):
            raise wrong_type(param, "an array of strings", value)
    return values


def _count(value: Any, param: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 18:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(param, "an integer", value)
    return value


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in schema:
        return schema | {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "enum" in schema:
        schema["enum"] = [*schema["enum"], None]
    if "type" in schema:
        schema["type"] = [schema["type"], "null"]
    return schema

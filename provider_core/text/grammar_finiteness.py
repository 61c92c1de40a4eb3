"""Whether a schema can be fulfilled by a value that ends."""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = dict[str, Any] | bool  # JSON

TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


def is_finite(schema: Schema, definitions: Mapping[str, Schema]) -> bool:
    """Whether some value of a schema ends; one that requires itself has none.

    The least fixed point over the definitions, so that a reference counts as endless until its
    target is known not to be. What no value satisfies at all is found by the compiler.
    """
    finite: set[str] = set()

    def ends(schema: Schema) -> bool:
        if isinstance(schema, bool) or "enum" in schema or "const" in schema:
            return True
        target = schema.get("$ref")
        if target is not None and target.removeprefix("#/$defs/") not in finite:
            return False
        if not all(map(ends, schema.get("allOf", ()))):
            return False
        if any(key in schema and not any(map(ends, schema[key])) for key in ("anyOf", "oneOf")):
            return False
        types = allowed_types(schema)
        return bool(types - {"object", "array"}) or any(
            all(map(ends, parts(schema)))
            for name, parts in (("object", _required_schemas), ("array", _required_items))
            if name in types
        )

    users: dict[str, set[str]] = {}  # which definitions refer to which
    for name, target in definitions.items():
        for used in _references(target):
            users.setdefault(used, set()).add(name)
    waiting = list(definitions)
    while waiting:
        name = waiting.pop()
        if name not in finite and ends(definitions[name]):
            finite.add(name)
            waiting += users.get(name, ())
    return ends(schema)


def _references(schema: Schema) -> Iterator[str]:
    """The names of the definitions that a schema refers to, however deep."""
    left: list[object] = [schema]
    while left:
        each = left.pop()
        if isinstance(each, list):
            left += each
        elif isinstance(each, dict):
            if isinstance(each.get("$ref"), str):
                yield each["$ref"].removeprefix("#/$defs/")
            left += each.values()


def _required_schemas(schema: dict[str, Any]) -> Iterator[Schema]:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        yield properties.get(name, schema.get("additionalProperties", True))


def _required_items(schema: dict[str, Any]) -> Iterator[Schema]:
    num_items = schema.get("minItems", 0)
    prefix = schema.get("prefixItems", ())
    yield from prefix[:num_items]
    if num_items > len(prefix):
        yield schema.get("items", True)


def allowed_types(schema: dict[str, Any]) -> frozenset[str]:
    """The types that `type` leaves."""
    names = schema.get("type", TYPES)
    return frozenset([names] if isinstance(names, str) else names)

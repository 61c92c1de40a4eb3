"""How much of a schema holds for one value at the same time.

The compiler intersects the expressions of one value, and looks whether anything is left. That
takes time exponential in their number, and as long as a `multipleOf` is large; its own limits
count neither.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from math import prod
from typing import Any

from provider_core.text.grammar_finiteness import Schema

MAX_INTERSECTED = 6
"""Expressions of one value; with twelve the compiler takes seconds, with fourteen minutes."""

MAX_MULTIPLE = 10_000
"""Largest `multipleOf` in units of its last digit, or product of several."""

_MAX_PLACES = 2048  # kinds of values that are looked at
_EXPRESSIONS = ("pattern", "format")
_CHOICES = ("anyOf", "oneOf")

_Schemas = list[Schema]
_Place = tuple[Schema | _Schemas, ...]  # what holds for one value; of a list, one schema


def intersects_much(schema: Schema, definitions: Mapping[str, Schema]) -> bool:
    """Whether more holds for some value than is intersected in time, or nobody can say.

    Args:
        schema: That was checked.
        definitions: Targets of its `$ref`.
    """
    bodies = _Bodies(definitions)
    waiting: list[_Place] = [(schema,)]
    seen: set[frozenset[int]] = set()
    while waiting:
        place = waiting.pop()
        key = frozenset(map(id, place))
        if key in seen:
            continue
        seen.add(key)
        if len(seen) > _MAX_PLACES:
            return True
        held, choices = bodies.open(place)
        if _is_much(held):
            return True
        if choices:
            first, *others = choices
            waiting += [(*held, option, *others) for option in first]
        else:
            waiting += _children(held)
    return False


class _Bodies:
    """What schemas say without those that they are combined with; the same object each time."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions
        self._bodies: dict[int, dict[str, Any]] = {}

    def open(self, place: _Place) -> tuple[list[dict[str, Any]], list[_Schemas]]:
        """All that holds, and the lists of which one schema each holds."""
        held: dict[int, dict[str, Any]] = {}
        choices: dict[int, _Schemas] = {}
        left = list(place)
        while left:
            each = left.pop()
            if isinstance(each, list):
                choices[id(each)] = each
            elif isinstance(each, dict) and id(each) not in held:
                held[id(each)] = self._body(each)
                left += each.get("allOf", ())
                left += (each[key] for key in _CHOICES if key in each)
                if "$ref" in each:
                    left.append(self._definitions[each["$ref"].removeprefix("#/$defs/")])
        distinct = {id(body): body for body in held.values()}
        return list(distinct.values()), list(choices.values())

    def _body(self, schema: dict[str, Any]) -> dict[str, Any]:
        combining = ("allOf", "$ref", *_CHOICES)
        if not any(key in schema for key in combining):
            return schema
        if id(schema) not in self._bodies:
            body = {key: value for key, value in schema.items() if key not in combining}
            self._bodies[id(schema)] = body
        return self._bodies[id(schema)]


def _is_much(held: list[dict[str, Any]]) -> bool:
    if sum(key in body for body in held for key in _EXPRESSIONS) > MAX_INTERSECTED:
        return True
    steps = [Decimal(str(body["multipleOf"])) for body in held if "multipleOf" in body]
    last_digit = min((int(step.normalize().as_tuple().exponent) for step in steps), default=0)
    return prod(abs(step.scaleb(-min(last_digit, 0))) for step in steps) > MAX_MULTIPLE


def _children(held: list[dict[str, Any]]) -> Iterator[_Place]:
    """What holds for each member and item of a value."""
    names = {name for body in held for name in body.get("properties", ())}
    patterns = {name for body in held for name in body.get("patternProperties", ())}
    for name in names:
        yield (*_members(held, "properties", name), *_all_of_patterns(held))
    for name in patterns:
        yield tuple(_members(held, "patternProperties", name))
    yield tuple(body["additionalProperties"] for body in held if "additionalProperties" in body)
    num_first = max((len(body.get("prefixItems", ())) for body in held), default=0)
    for i in range(num_first + 1):
        yield tuple(_item(body, i) for body in held)


def _members(held: list[dict[str, Any]], kind: str, name: str) -> Iterator[Schema]:
    for body in held:
        if name in body.get(kind, ()):
            yield body[kind][name]
        else:
            yield body.get("additionalProperties", True)


def _all_of_patterns(held: list[dict[str, Any]]) -> Iterator[Schema]:
    for body in held:
        yield from body.get("patternProperties", {}).values()


def _item(body: dict[str, Any], index: int) -> Schema:
    prefix = body.get("prefixItems", ())
    schema: Schema = prefix[index] if index < len(prefix) else body.get("items", True)
    return schema

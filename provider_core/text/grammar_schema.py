"""JSON Schema as far as it can be enforced token by token; everything else is refused by name.

What comes out of `check_schema` is a schema of another spelling that means the same or less:

- Only keywords that are enforced are left. Annotations (`title`, `description`, `default`,
  `examples`, `deprecated`, `readOnly`, `contentEncoding` and so on) and keywords that no draft
  knows mean nothing and are dropped, as the specification asks.
- Every `$ref` points to one of the schema's own places; nothing is ever fetched.
- A `format` that has a pattern here is narrowed to it, so that whatever is written is valid.

A keyword that asserts something which cannot be enforced is a 400 that names it and its place.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Never, TypeGuard
from urllib.parse import unquote

from provider_core.errors import InvalidRequest
from provider_core.text.grammar_finiteness import TYPES, Schema, allowed_types, is_finite
from provider_core.text.grammar_formats import (
    ENFORCED_FORMATS,
    FORMAT_PATTERNS,
    NO_STRANGE_SPACE,
)
from provider_core.text.grammar_intersections import intersects_much

MAX_DEPTH = 32
"""Schemas within schemas."""

MAX_PROPERTIES = 512
"""Declared by all objects of a schema together."""

MAX_PATTERN_CHARACTERS = 1024
"""Of one regular expression."""

LARGEST_NUMBER = 10**18
"""Of numbers that the schema leaves without bounds. The compiler knows none much larger."""

_DRAFTS = re.compile(r"https?://json-schema\.org/(draft-0[467]|draft/20(19-09|20-12))/schema#?")
_REFS_STAND_ALONE = re.compile(r"https?://json-schema\.org/draft-0[467]/")  # siblings of $ref
_COUNTS = frozenset(
    {"minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength"}
)
_NUMBERS = _COUNTS | {
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_ENFORCED = _NUMBERS | {
    *("$ref", "type", "enum", "const", "anyOf", "oneOf", "allOf"),
    *("properties", "patternProperties", "additionalProperties", "required"),
    *("items", "prefixItems", "additionalItems", "pattern", "format"),
}
_UNENFORCED = frozenset(
    {"not", "if", "contains", "dependentRequired", "dependentSchemas", "dependencies"}
    | {"$dynamicRef", "$recursiveRef"}
)
_LEAST_STEP = 1e-9
_LEAST_RELATIVE_STEP = 1e-12
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")  # of RFC 6901; no list is longer
_UNWRITABLE = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")  # without \u escapes


@dataclass(frozen=True, slots=True)
class CheckedSchema:
    """A schema that may be enforced, and its places, for blaming one of them later.

    Attributes:
        schema: Of keywords that are enforced only. A JSON object.
        places: Pairs of a JSON pointer in the client's schema and the schema there, innermost
            first. Each may refer to `definitions`.
        definitions: Targets of `$ref`, by the names that `schema` uses.
    """

    schema: dict[str, Any]
    places: tuple[tuple[str, Schema], ...]
    definitions: Mapping[str, Schema]


def check_schema(schema: object, *, param: str, strict: bool) -> CheckedSchema:
    """Check a client's schema and bring it into the form that is compiled.

    Args:
        schema: JSON value.
        param: The request's field that holds it; errors add the place in it.
        strict: Refuse a `format` that is not enforced instead of ignoring it.

    Raises:
        InvalidRequest: `invalid_schema` or `schema_too_complex`; `param` says where.
    """
    if not isinstance(schema, dict):
        raise InvalidRequest(
            "a JSON schema must be an object here", param=param, code="invalid_schema"
        )
    walk = _Walk(schema, param, strict=strict)
    checked = walk.run()
    if not is_finite(checked, walk.definitions):
        walk.refuse("", "every value of this schema would be without end")
    if intersects_much(checked, walk.definitions):
        message = "too many patterns, formats or multiples hold for one value"
        walk.refuse("", message, "schema_too_complex")
    if walk.definitions:
        checked = {**checked, "$defs": walk.definitions}
    return CheckedSchema(checked, tuple(walk.places), walk.definitions)


@dataclass(slots=True)
class _Walk:
    """One pass over a schema and over whatever its references point to."""

    root: dict[str, Any]
    param: str
    strict: bool = field(kw_only=True)
    places: list[tuple[str, Schema]] = field(default_factory=list)
    definitions: dict[str, Schema] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)  # of definitions, by pointer
    _waiting: list[str] = field(default_factory=list)  # pointers of definitions to be checked
    _num_properties: int = 0
    _refs_stand_alone: bool = False

    def run(self) -> dict[str, Any]:
        draft = self.root.get("$schema")
        if draft is not None:
            if not isinstance(draft, str) or not _DRAFTS.fullmatch(draft):
                self.refuse("/$schema", "the draft is not known")
            self._refs_stand_alone = _REFS_STAND_ALONE.match(draft) is not None
        checked = self._object(self.root, "", 0)
        while self._waiting:
            pointer = self._waiting.pop()
            target = self._schema(self._resolve(pointer), pointer, 0)
            self.definitions[self._names[pointer]] = target
        return checked

    def refuse(self, pointer: str, message: str, code: str = "invalid_schema") -> Never:
        """Raise what the client is told about one place."""
        raise InvalidRequest(message, param=self.param + pointer, code=code)

    def _schema(self, schema: object, pointer: str, depth: int) -> Schema:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            self.refuse(pointer, "a schema must be an object or a boolean")
        return self._object(schema, pointer, depth)

    def _object(self, schema: dict[str, Any], pointer: str, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            message = f"the schema is nested deeper than {MAX_DEPTH}"
            self.refuse(pointer, message, "schema_too_complex")
        if pointer and isinstance(schema.get("$id"), str) and not schema["$id"].startswith("#"):
            self.refuse(f"{pointer}/$id", "$id is understood at the root only")
        if self._refs_stand_alone and "$ref" in schema:
            schema = {"$ref": schema["$ref"]}
        checked: dict[str, Any] = {}
        for keyword, value in schema.items():
            place = f"{pointer}/{_escape(keyword)}"
            if _asserts_what_cannot_be_enforced(keyword, value, schema):
                self.refuse(place, f"{keyword} cannot be enforced")
            if keyword in _ENFORCED:
                checked[keyword] = self._value(keyword, value, place, depth + 1)
        self._tidy(checked, pointer)
        self.places.append((pointer, checked))
        return checked

    def _value(self, keyword: str, value: Any, place: str, depth: int) -> Any:  # JSON both
        """Check one keyword's value, and everything in it."""
        match keyword:
            case "additionalProperties" | "additionalItems":
                return self._schema(value, place, depth)
            case "items" if not isinstance(value, list):
                return self._schema(value, place, depth)
            case "anyOf" | "oneOf" | "allOf" | "prefixItems" | "items":
                return self._list(keyword, value, place, depth)
            case "properties" | "patternProperties":
                return self._map(keyword, value, place, depth)
            case "$ref":
                return self._ref(value, place)
            case _ if keyword in _NUMBERS:
                return self._number(keyword, value, place)
        return self._words(keyword, value, place)

    def _words(self, keyword: str, value: Any, place: str) -> Any:  # JSON both
        match keyword:
            case "type":
                self._check_type(value, place)
            case "pattern":
                self._check_pattern(value, place)
            case "format" if not isinstance(value, str):
                self.refuse(place, "format must be a string")
            case "enum" if not isinstance(value, list) or not value:
                self.refuse(place, "enum must be a list that is not empty")
            case "required":
                if not isinstance(value, list) or not all(isinstance(n, str) for n in value):
                    self.refuse(place, "required must be a list of names")
                value = list(dict.fromkeys(value))
        if keyword in {"enum", "const", "required"}:
            self._check_writable(value, place)
        return value

    def _number(self, keyword: str, value: object, place: str) -> int | float:
        if not _is_number(value):
            self.refuse(place, f"{keyword} must be a number")
        if keyword not in _COUNTS:
            return value
        if value < 0 or value != int(value):
            self.refuse(place, f"{keyword} must be an integer of 0 or more")
        return int(value)

    def _list(self, keyword: str, value: Any, place: str, depth: int) -> list[Schema]:
        if not isinstance(value, list) or (not value and keyword != "items"):
            self.refuse(place, f"{keyword} must be a list of schemas")
        return [self._schema(each, f"{place}/{i}", depth) for i, each in enumerate(value)]

    def _map(self, keyword: str, value: Any, place: str, depth: int) -> dict[str, Schema]:
        if not isinstance(value, dict):
            self.refuse(place, f"{keyword} must be an object of schemas")
        self._num_properties += len(value)
        if self._num_properties > MAX_PROPERTIES:
            message = f"the schema has more than {MAX_PROPERTIES} properties"
            self.refuse(place, message, "schema_too_complex")
        checked = {}
        for name, each in value.items():
            inner = f"{place}/{_escape(name)}"
            if keyword == "properties":
                self._check_writable(name, inner)
            else:
                self._check_pattern(name, inner)
            checked[name] = self._schema(each, inner, depth)
        return checked

    def _ref(self, value: Any, place: str) -> str:
        if not isinstance(value, str):
            self.refuse(place, "$ref must be a string")
        if not re.match(r"#(/|$)", value):
            self.refuse(place, "$ref must point into this schema, as in #/$defs/name")
        pointer = unquote(value[1:])
        if pointer not in self._names:
            if not isinstance(self._resolve(pointer), dict | bool):
                self.refuse(place, "$ref points to no schema")
            self._names[pointer] = f"d{len(self._names)}"
            self._waiting.append(pointer)
        return f"#/$defs/{self._names[pointer]}"

    def _tidy(self, checked: dict[str, Any], pointer: str) -> None:
        """Settle what more than one keyword decides."""
        if isinstance(checked.get("items"), list):  # before draft 2020-12
            checked["prefixItems"] = checked["items"]
            checked["items"] = checked.get("additionalItems", True)
        checked.pop("additionalItems", None)
        if "number" in allowed_types(checked):
            _close_bounds(checked)
            _bound(checked)
        if "." in checked.get("pattern", "") or r"\S" in checked.get("pattern", ""):
            _narrow(checked, NO_STRANGE_SPACE)
        name = checked.pop("format", None)
        if name is not None and "string" in allowed_types(checked):
            if name in FORMAT_PATTERNS:
                _narrow(checked, FORMAT_PATTERNS[name])
            elif name in ENFORCED_FORMATS:
                checked["format"] = name
            elif self.strict:
                self.refuse(f"{pointer}/format", f"the format {name[:64]!r} cannot be enforced")
        is_open = checked.get("additionalProperties") is not False or "patternProperties" in checked
        if not is_open and checked.get("maxProperties", 0) >= len(checked.get("properties", ())):
            checked.pop("maxProperties", None)
        if is_open and checked.get("minProperties", 0) > 1 + len(checked.get("required", ())):
            # A name may be written twice, and counts once when it is read.
            message = "minProperties cannot be enforced beyond one more than is required"
            self.refuse(f"{pointer}/minProperties", message)

    def _resolve(self, pointer: str) -> object:
        """What a JSON pointer (RFC 6901) points to; `None` if nothing."""
        found: object = self.root
        for token in pointer.split("/")[1:]:
            name = _unescape(token)
            if isinstance(found, dict):
                found = found.get(name)
            elif isinstance(found, list) and _INDEX.fullmatch(name) and int(name) < len(found):
                found = found[int(name)]
            else:
                return None
        return found

    def _check_type(self, value: object, place: str) -> None:
        names = value if isinstance(value, list) else [value]
        if not names or not all(isinstance(name, str) and name in TYPES for name in names):
            self.refuse(place, f"type must be of {', '.join(sorted(TYPES))}")

    def _check_pattern(self, pattern: object, place: str) -> None:
        if not isinstance(pattern, str):
            self.refuse(place, "pattern must be a string")
        if len(pattern) > MAX_PATTERN_CHARACTERS:
            message = f"the pattern has more than {MAX_PATTERN_CHARACTERS} characters"
            self.refuse(place, message, "schema_too_complex")

    def _check_writable(self, value: object, place: str) -> None:
        """Refuse text that needs a hexadecimal escape.

        None are ever written, so that no name of a property has two spellings.
        """
        if any(_UNWRITABLE.search(text) for text in _strings(value)):
            self.refuse(place, "text with control characters cannot be enforced")


def _asserts_what_cannot_be_enforced(keyword: str, value: object, schema: dict[str, Any]) -> bool:
    match keyword:
        case "uniqueItems":
            most = schema.get("maxItems")
            return bool(value) and not (_is_number(most) and most <= 1)
        case "propertyNames":
            return value not in (True, {}, {"type": "string"})
        case "unevaluatedItems" | "unevaluatedProperties":
            return value not in (True, {})
    return keyword in _UNENFORCED


def _close_bounds(checked: dict[str, Any]) -> None:
    """Replace exclusive bounds that are whole by inclusive ones right beside them.

    The compiler lets an exclusive bound of 4 be reached if the other one is below 5.
    """
    for exclusive, inclusive, tighter, sign in (
        ("exclusiveMinimum", "minimum", max, 1),
        ("exclusiveMaximum", "maximum", min, -1),
    ):
        bound = checked.get(exclusive)
        if bound is not None and bound == int(bound):
            del checked[exclusive]
            beside = bound + sign * max(_LEAST_STEP, abs(bound) * _LEAST_RELATIVE_STEP)
            checked[inclusive] = tighter(beside, checked.get(inclusive, beside))


def _bound(checked: dict[str, Any]) -> None:
    """Give a number the bounds that it lacks; without any it may be 1e999, which readers refuse."""
    if "type" not in checked or checked.keys() & {"enum", "const", "multipleOf"}:
        return
    lowest = max(checked.get(key, -inf) for key in ("minimum", "exclusiveMinimum"))
    highest = min(checked.get(key, inf) for key in ("maximum", "exclusiveMaximum"))
    if lowest == -inf and highest > -LARGEST_NUMBER:
        checked["minimum"] = -LARGEST_NUMBER
    if highest == inf and lowest < LARGEST_NUMBER:
        checked["maximum"] = LARGEST_NUMBER


def _narrow(checked: dict[str, Any], pattern: str) -> None:
    checked["allOf"] = [*checked.get("allOf", ()), {"pattern": pattern}]


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _strings(value: object) -> Iterator[str]:
    """Every string in a JSON value, names included."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            left += [*each, *each.values()]
        elif isinstance(each, list):
            left += each


def _escape(name: str) -> str:
    """One part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _unescape(token: str) -> str:
    return token.replace("~1", "/").replace("~0", "~")

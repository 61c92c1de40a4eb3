"""Which JSON types a tool's schema leaves to an argument, for values that are written as text."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from provider_core.text.grammar_finiteness import TYPES

_MAX_DEPTH = 32  # of schemas within and behind each other; what lies deeper may be anything
_CHOICES = ("anyOf", "oneOf")


class ArgumentTypes:
    """The types of a schema's parts, each of which is looked at once.

    Args:
        root: The whole schema, which references point into. It need not be a good one.
    """

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[int, frozenset[str]] = {}  # by the identities of parts

    def of(self, schema: object, depth: int = 0) -> frozenset[str]:
        """The types that a schema does not rule out, in JSON Schema's words.

        Args:
            schema: A part of the whole one; what is no schema rules nothing out.
            depth: Schemas around it.
        """
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
            return TYPES
        if id(schema) not in self._known:
            self._known[id(schema)] = TYPES  # should a reference lead back here
            self._known[id(schema)] = self._left_by(schema, depth + 1)
        return self._known[id(schema)]

    def _left_by(self, schema: Mapping[str, Any], depth: int) -> frozenset[str]:
        types = TYPES
        if "type" in schema:
            names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            types = frozenset(name for name in names if isinstance(name, str))
            types |= {"integer"} if "number" in types else frozenset()
        for parts in (schema.get(key) for key in _CHOICES):
            if isinstance(parts, list):
                types &= frozenset().union(*(self.of(part, depth) for part in parts))
        if isinstance(parts := schema.get("allOf"), list):
            types = types.intersection(*(self.of(part, depth) for part in parts))
        if isinstance(reference := schema.get("$ref"), str):
            types &= self.of(self._resolve(reference), depth)
        return types

    def _resolve(self, reference: str) -> object:
        """What a reference points to; `None` if nothing in this schema."""
        start, *names = unquote(reference).split("/")
        found: object = self._root if start == "#" else None
        for name in names:
            key = name.replace("~1", "/").replace("~0", "~")
            found = found.get(key) if isinstance(found, Mapping) else None
        return found


def types_of(text: str) -> Sequence[str]:
    """The types that a JSON value has: `1.0` is an integer too."""
    match text[:1]:
        case '"':
            return ("string",)
        case "{":
            return ("object",)
        case "[":
            return ("array",)
        case "t" | "f":
            return ("boolean",)
        case "n":
            return ("null",)
    return ("integer", "number") if float(text).is_integer() else ("number",)

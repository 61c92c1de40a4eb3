"""Grammars of arguments as elements, in the schema's order.

Strings stand there without quotes and are as free as text; what a schema says of their length or
form is not enforced. All other values are JSON of their schema.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from provider_core.errors import InvalidRequest
from provider_core.text.grammar import json_rule
from provider_core.text.tool_parsers.elements import is_anything, is_text, listed_values
from provider_core.text.tool_parsers.reading import MAX_HEADER_CHARS
from provider_core.tool_calling import ElementSyntax
from provider_core.types import Tool

_DEFINITIONS = frozenset({"$defs", "definitions"})
_UNENFORCED = frozenset({"pattern", "format", "minLength", "maxLength"})
_ANY_NAME = r"/[A-Za-z0-9_.-]{1,64}/"


def element_rules(
    rule: str,
    schema: Mapping[str, Any],
    tool: Tool,
    elements: ElementSyntax,
    spell: Callable[[str], str],
) -> list[str]:
    """The Lark rules of a tool's arguments.

    Args:
        rule: The name of the first; the others' begin with it.
        schema: Of the arguments; without `properties` they may be any.
        tool: Whose they are.
        elements: How they are spelled.
        spell: Writes markup in Lark.

    Raises:
        InvalidRequest: The tool is strict, and an argument's schema cannot be enforced.
    """
    return _Elements(tool, elements, spell, schema).rules(rule)


@dataclass(frozen=True, slots=True)
class _Elements:
    tool: Tool
    elements: ElementSyntax
    spell: Callable[[str], str]
    schema: Mapping[str, Any]

    def rules(self, rule: str) -> list[str]:
        properties = self._properties()
        opening, middle = self.spell(self.elements.before_key), self.spell(self.elements.after_key)
        if properties is None:
            return [
                f"{rule}: ({opening} {_ANY_NAME} {middle} {rule}v)*",
                *self._free(f"{rule}v"),
            ]
        required = frozenset(self.schema.get("required", ()))
        parts, rules = [], []
        for i, (name, value) in enumerate(properties.items()):
            part = f"{rule}p{i}"
            parts.append(part if name in required else f"{part}?")
            rules += self._argument(part, name, value)
        return [f"{rule}: {' '.join(parts)}" if parts else f'{rule}: ""', *rules]

    def _properties(self) -> Mapping[str, Any] | None:
        """Those that may be written; `None` if any may, as where a parser cannot read their names.

        Raises:
            InvalidRequest: It cannot read the name of a strict tool's.
        """
        properties = self.schema.get("properties")
        if not isinstance(properties, Mapping):
            return None
        key_end, _, _ = self.elements.after_key.partition("\n")
        for name in properties:
            if key_end in name or name != name.strip() or len(name) >= MAX_HEADER_CHARS:
                if not self.tool.strict:
                    return None
                param = f"{self.tool.param}/properties/{name}"
                message = "this name cannot be written in this model's calls"
                raise InvalidRequest(message, param=param, code="invalid_schema")
        return properties

    def _argument(self, rule: str, name: str, schema: object) -> list[str]:
        opening = self.spell(f"{self.elements.before_key}{name}{self.elements.after_key}")
        closing = self.spell(self.elements.after_value)
        param = f"{self.tool.param}/properties/{name}"
        if is_text(schema) and isinstance(schema, Mapping):
            if self.tool.strict:
                self._json(schema, param)  # refuses what cannot be enforced
            texts = listed_values(schema)
            if texts and all(map(self._is_read_back, texts)):
                choices = " | ".join(map(self.spell, texts))
                return [f"{rule}: {opening} ({choices}) {closing}"]
            unenforced = _UNENFORCED & schema.keys() | ({"enum"} if texts else set())
            if self.tool.strict and unenforced:
                message = f"{min(unenforced)} cannot be enforced for this model's calls"
                raise InvalidRequest(message, param=param, code="invalid_schema")
            return [f"{rule}: {opening} {rule}v", *self._free(f"{rule}v")]
        if is_anything(schema):
            return [f"{rule}: {opening} {rule}v", *self._free(f"{rule}v")]
        value = self._json(schema, param)
        return [f"{rule}: {opening} {rule}v {closing}", f"{rule}v: {value}"]

    def _is_read_back(self, text: str) -> bool:
        """Whether a parser reads a text as it was written."""
        return self.elements.closing_tag not in text and text == text.strip("\n")

    def _json(self, schema: object, param: str) -> str:
        definitions = {key: self.schema[key] for key in _DEFINITIONS & self.schema.keys()}
        whole = {**schema, **definitions} if isinstance(schema, Mapping) else schema
        try:
            return json_rule(whole, param=param, strict=self.tool.strict)
        except InvalidRequest:
            if self.tool.strict:
                raise
            return json_rule({}, param=param)

    def _free(self, rule: str) -> list[str]:
        """Text up to the first closing tag, which ends it whatever stands before that."""
        _, tag, behind = self.elements.after_value.partition(self.elements.closing_tag)
        closing, text = self.spell(tag), rule.upper()
        if "<[" in closing:  # a control token, which no text holds
            end = self.spell(self.elements.after_value)
            return [f"{rule}: {text}? {end}", rf"{text}: /(.|\n)+/"]
        return [
            f"{rule}: {rule}t {self.spell(behind)}",
            rf"{rule}t[lazy]: /(.|\n)*/ {closing}",
        ]

"""Qwen 3 Coder, Seed and GLM: arguments as elements between tags, which are told as JSON.

A value is text, without the line breaks around it, and ends at the first closing tag. It is a
string where the tool's schema says so; else it is JSON if it is that, of a type that the schema
allows, and a string if not. Where the schema asks for JSON, a closing tag within a string of that
is text. Of an argument that is written twice the first is told.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from provider_core.text.incremental import Markers, Parse
from provider_core.text.json_syntax import is_json
from provider_core.text.tool_parsers.argument_types import ArgumentTypes, types_of
from provider_core.text.tool_parsers.json_values import ignore
from provider_core.text.tool_parsers.reading import MAX_HEADER_CHARS, CallSource, FamilyParser
from provider_core.tool_calling import ElementSyntax, ToolSyntax
from provider_core.types import Tool

_QUOTES = re.compile(r'\\.|"', re.DOTALL)  # and what is escaped, so that it is skipped
_PYTHON = {"True": "true", "False": "false", "None": "null"}


@dataclass(frozen=True, slots=True)
class _Tags:
    """A family's markup. White space between any of it is free.

    Attributes:
        function: Between the opening, which models leave out at times, and the name; may be empty.
        name_ends: What may follow the name.
        key: Before an argument's name.
        value: Between that and its value.
        value_end: Behind the value.
        function_end: Behind the last argument; may be empty.
    """

    open: str
    close: str
    function: str
    name_ends: tuple[str, ...]
    key: str
    value: str
    value_end: str
    function_end: str


_QWEN = _Tags(
    open="<tool_call>",
    close="</tool_call>",
    function="<function=",
    name_ends=(">",),
    key="<parameter=",
    value=">",
    value_end="</parameter>",
    function_end="</function>",
)
_SEED = replace(_QWEN, open="<seed:tool_call>", close="</seed:tool_call>")
_GLM = _Tags(
    open="<tool_call>",
    close="</tool_call>",
    function="",
    name_ends=("\n", "<arg_key>", "</tool_call>"),
    key="<arg_key>",
    value="</arg_key>\n<arg_value>",
    value_end="</arg_value>",
    function_end="",
)

QWEN_SYNTAX = ToolSyntax(
    before_name="<tool_call>\n<function=",
    after_name=">\n",
    after_arguments="</function>\n</tool_call>",
    separator="\n",
    trigger="<tool_call>",
    elements=ElementSyntax("<parameter=", ">\n", "\n</parameter>\n"),
    control_tokens=("<tool_call>", "</tool_call>"),
)
SEED_SYNTAX = ToolSyntax(
    before_name="<seed:tool_call>\n<function=",
    after_name=">\n",
    after_arguments="</function>\n</seed:tool_call>",
    separator="\n",
    trigger="<seed:tool_call>",
    elements=ElementSyntax("<parameter=", ">", "</parameter>\n"),
    control_tokens=("<seed:tool_call>", "</seed:tool_call>"),
)
GLM_SYNTAX = ToolSyntax(
    before_name="<tool_call>",
    after_name="\n",
    after_arguments="</tool_call>",
    separator="\n",
    trigger="<tool_call>",
    elements=ElementSyntax("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"),
    control_tokens=(
        *("<tool_call>", "</tool_call>"),
        *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    ),
)


def is_text(schema: object) -> bool:
    """Whether every value of a schema is a string, so that it is written without quotes."""
    if not isinstance(schema, Mapping):
        return False
    if values := listed_values(schema):
        return all(isinstance(value, str) for value in values)
    return schema.get("type") == "string"


def is_anything(schema: object) -> bool:
    """Whether a schema says nothing, so that a value is text, which may be JSON."""
    return schema in ({}, True)


def listed_values(schema: Mapping[str, Any]) -> Sequence[Any]:
    """The values that a schema lists; empty if it lists none."""
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return values if isinstance(values, list) else ()


def make_qwen_parser(tools: Sequence[Tool]) -> FamilyParser:
    """The parser of a request: its schemas say which arguments are strings."""
    return FamilyParser(QWEN_SYNTAX, _Reader(_QWEN, tools).read)


def make_seed_parser(tools: Sequence[Tool]) -> FamilyParser:
    """As `make_qwen_parser`."""
    return FamilyParser(SEED_SYNTAX, _Reader(_SEED, tools).read)


def make_glm_parser(tools: Sequence[Tool]) -> FamilyParser:
    """As `make_qwen_parser`."""
    return FamilyParser(GLM_SYNTAX, _Reader(_GLM, tools).read)


class _Reader:
    """Reads whole replies with one family's tags and one request's tools."""

    def __init__(self, tags: _Tags, tools: Sequence[Tool]) -> None:
        self._tags = tags
        self._properties = {tool.name: _properties(tool) for tool in tools}
        self._types = {tool.name: ArgumentTypes(tool.parameters or {}) for tool in tools}
        self._openers = Markers([tag for tag in (tags.open, tags.function) if tag])
        self._name_ends = Markers(tags.name_ends)
        self._key_ends = Markers([tags.value.partition("\n")[0]])
        self._value_ends = Markers([f"\n{tags.value_end}", tags.value_end])

    def read(self, source: CallSource) -> Parse[None]:
        tags = self._tags
        while marker := (yield from source.until(self._openers, source.say)):
            source.begin_attempt(marker)
            if marker == tags.open and tags.function:
                yield from source.peek_solid()
                if not (yield from source.skip(tags.function)):
                    source.give_up()
                    continue
            name, end = yield from _read_text(source, self._name_ends)
            if not name:
                source.give_up()
                continue
            source.start_call(name)
            if end == tags.close:
                source.tell_arguments("{}")
                source.end_call()
                continue
            yield from self._read_arguments(source, name, has_key=end == tags.key)
            source.end_call()
            source.is_in_markup = True
            yield from source.peek_solid()
            yield from source.skip(tags.close)
            source.is_in_markup = False

    def _read_arguments(self, source: CallSource, name: str, *, has_key: bool) -> Parse[None]:
        """Read all arguments; `has_key` says that the first one's opening was read."""
        tags, properties = self._tags, self._properties.get(name, {})
        types = self._types.get(name, ArgumentTypes({}))
        told: set[str] = set()
        while True:
            if not has_key:
                yield from source.peek_solid()
                if not (yield from source.skip(tags.key)):
                    break
            has_key = False
            key, _ = yield from _read_text(source, self._key_ends)
            _, line_break, opening = tags.value.partition("\n")
            if line_break:
                yield from source.peek_solid()
                yield from source.skip(opening)
            yield from source.skip("\n")
            tell = ignore if key in told else source.tell_arguments
            tell(f"{', ' if told else '{'}{_quoted(key)}: ")
            told.add(key)
            yield from self._read_value(source, properties.get(key, True), types, tell)
        source.tell_arguments("}" if told else "{}")
        yield from source.skip(tags.function_end)

    def _read_value(
        self,
        source: CallSource,
        schema: object,
        types: ArgumentTypes,
        tell: Callable[[str], None],
    ) -> Parse[None]:
        if is_text(schema):
            tell('"')
            yield from source.until(self._value_ends, lambda text: tell(_quoted(text)[1:-1]))
            tell('"')
            return
        pieces: list[str] = []
        tag = yield from source.until(self._value_ends, pieces.append)
        while not is_anything(schema) and _ends_in_string("".join(pieces)):
            pieces.append(tag)
            tag = yield from source.until(self._value_ends, pieces.append)
        tell(_as_json("".join(pieces), types.of(schema)))


def _properties(tool: Tool) -> Mapping[str, Any]:
    found = (tool.parameters or {}).get("properties")
    return found if isinstance(found, Mapping) else {}


def _read_text(source: CallSource, ends: Markers) -> Parse[tuple[str, str]]:
    """Read a name and what ends it; two empty strings if that is far away."""
    pieces: list[str] = []
    found = yield from source.until(ends, pieces.append, limit=MAX_HEADER_CHARS)
    return ("".join(pieces).strip() if found else "", found)


def _ends_in_string(text: str) -> bool:
    """Whether a text begins like JSON of more than one word and leaves a string open."""
    quotes = (found[0] == '"' for found in _QUOTES.finditer(text))
    return text.lstrip()[:1] in {'"', "[", "{"} and sum(quotes) % 2 == 1


def _as_json(text: str, types: frozenset[str]) -> str:
    """A value as JSON, of one of these types if it can be read so."""
    text = text.strip()
    value = _PYTHON.get(text, text)
    if is_json(value) and ("string" not in types or not types.isdisjoint(types_of(value))):
        return value
    return _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

"""Qwen 3 Coder: arguments as elements, `<parameter=NAME>`, which are told as JSON.

A value is text, without the line breaks around it. It is a string where the tool's schema says so;
else it is JSON if it is that, and a string if not.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from provider_core.text.incremental import Markers, Parse
from provider_core.text.tool_parsers.reading import MAX_HEADER_CHARS, CallSource, FamilyParser
from provider_core.tool_calling import ToolSyntax
from provider_core.types import Tool

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"
_OPENERS = Markers([_OPEN, _FUNCTION])
_NAME_ENDS = Markers([">"])
_VALUE_ENDS = Markers([f"\n{_PARAMETER_END}", _PARAMETER_END])
_PYTHON = {"True": "true", "False": "false", "None": "null"}

SYNTAX = ToolSyntax(
    before_name=f"{_OPEN}\n{_FUNCTION}",
    after_name=">\n",
    after_arguments=f"{_FUNCTION_END}\n{_CLOSE}",
    separator="\n",
    trigger=_OPEN,
    arguments="xml",
    control_tokens=(_OPEN, _CLOSE),
)


def is_text(schema: object) -> bool:
    """Whether every value of a schema is a string, so that it is written without quotes."""
    if not isinstance(schema, Mapping):
        return False
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if isinstance(values, list) and values:
        return all(isinstance(value, str) for value in values)
    return schema.get("type") == "string"


def make_parser(tools: Sequence[Tool]) -> FamilyParser:
    """The parser of a request: its schemas say which arguments are strings."""
    properties = {tool.name: _properties(tool) for tool in tools}
    return FamilyParser(SYNTAX, lambda source: _read(source, properties))


def _properties(tool: Tool) -> Mapping[str, Any]:
    found = (tool.parameters or {}).get("properties")
    return found if isinstance(found, Mapping) else {}


def _read(source: CallSource, properties: Mapping[str, Mapping[str, Any]]) -> Parse[None]:
    while marker := (yield from source.until(_OPENERS, source.say)):
        source.begin_attempt(marker)
        if marker == _OPEN:
            yield from source.peek_solid()
            if not (yield from source.skip(_FUNCTION)):
                source.give_up()
                continue
        name = yield from _read_name(source)
        if not name:
            source.give_up()
            continue
        source.start_call(name)
        yield from _read_parameters(source, properties.get(name, {}))
        source.end_call()
        source.is_in_markup = True
        yield from source.peek_solid()
        yield from source.skip(_CLOSE)
        source.is_in_markup = False


def _read_name(source: CallSource) -> Parse[str]:
    pieces: list[str] = []
    found = yield from source.until(_NAME_ENDS, pieces.append, limit=MAX_HEADER_CHARS)
    return "".join(pieces).strip() if found else ""


def _read_parameters(source: CallSource, properties: Mapping[str, Any]) -> Parse[None]:
    before = "{"
    while True:
        yield from source.peek_solid()
        if not (yield from source.skip(_PARAMETER)):
            break
        name = yield from _read_name(source)
        yield from source.skip("\n")
        source.tell_arguments(f"{before}{_quoted(name)}: ")
        before = ", "
        if is_text(properties.get(name)):
            source.tell_arguments('"')
            yield from source.until(_VALUE_ENDS, _telling_text(source))
            source.tell_arguments('"')
        else:
            pieces: list[str] = []
            yield from source.until(_VALUE_ENDS, pieces.append)
            source.tell_arguments(_as_json("".join(pieces)))
    source.tell_arguments("{}" if before == "{" else "}")
    yield from source.skip(_FUNCTION_END)


def _telling_text(source: CallSource) -> Callable[[str], None]:
    return lambda text: source.tell_arguments(_quoted(text)[1:-1])


def _as_json(text: str) -> str:
    text = text.strip()
    text = _PYTHON.get(text, text)
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return _quoted(text)
    return text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

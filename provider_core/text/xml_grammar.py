r"""Arguments as elements: `<parameter=NAME>\nVALUE\n</parameter>\n`, in the schema's order.

Strings stand there without quotes and are as free as text; what a schema says of their length or
form is not enforced. All other values are JSON of their schema.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from provider_core.errors import InvalidRequest
from provider_core.text.grammar import json_rule
from provider_core.text.tool_parsers.qwen_coder import is_text
from provider_core.types import Tool

_CLOSE = "\n</parameter>\n"
_DEFINITIONS = frozenset({"$defs", "definitions"})
_UNENFORCED = frozenset({"pattern", "format", "minLength", "maxLength"})
_NAMED = r"/<parameter=[^>\n]{1,64}>\n/"


def xml_rules(rule: str, schema: Mapping[str, Any], tool: Tool) -> list[str]:
    """The Lark rules of a tool's arguments.

    Args:
        rule: The name of the first; the others' begin with it.
        schema: Of the arguments; without `properties` they may be any.
        tool: Whose they are.

    Raises:
        InvalidRequest: The tool is strict, and an argument's schema cannot be enforced.
    """
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return [f"{rule}: ({_NAMED} {rule}v)*", _free(f"{rule}v")]
    required = frozenset(schema.get("required", ()))
    definitions = {key: schema[key] for key in _DEFINITIONS & schema.keys()}
    parts, rules = [], []
    for i, (name, value) in enumerate(properties.items()):
        part = f"{rule}p{i}"
        parts.append(part if name in required else f"{part}?")
        rules += _parameter(part, name, value, definitions, tool)
    return [f"{rule}: {' '.join(parts) or _quoted('')}", *rules]


def _parameter(
    rule: str, name: str, schema: object, definitions: Mapping[str, Any], tool: Tool
) -> list[str]:
    head = f"{rule}: {_quoted(f'<parameter={name}>' + chr(10))}"
    param = f"{tool.param}/properties/{name}"
    if is_text(schema) and isinstance(schema, Mapping):
        if texts := schema.get("enum", [schema["const"]] if "const" in schema else None):
            return [f"{head} ({' | '.join(map(_quoted, texts))}) {_quoted(_CLOSE)}"]
        unenforced = _UNENFORCED & schema.keys()
        if tool.strict and unenforced:
            message = f"{min(unenforced)} cannot be enforced for this model's calls"
            raise InvalidRequest(message, param=param, code="invalid_schema")
        return [f"{head} {rule}v", _free(f"{rule}v")]
    if schema in ({}, True):  # anything: text, which is JSON or not
        return [f"{head} {rule}v", _free(f"{rule}v")]
    try:
        value = json_rule(_with(schema, definitions), param=param, strict=tool.strict)
    except InvalidRequest:
        if tool.strict:
            raise
        value = json_rule({}, param=param)
    return [f"{head} {rule}v {_quoted(_CLOSE)}", f"{rule}v: {value}"]


def _free(rule: str) -> str:
    """Text up to the closing tag."""
    return rf"{rule}[lazy]: /(.|\n)*/ {_quoted(_CLOSE)}"


def _with(schema: object, definitions: Mapping[str, Any]) -> object:
    return {**schema, **definitions} if isinstance(schema, Mapping) else schema


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()

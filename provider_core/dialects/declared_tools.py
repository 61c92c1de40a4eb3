"""Functions that a client declares, whatever its dialect: their names and their number."""

import re
from collections.abc import Sequence
from typing import Any

from provider_core.dialects.chat_request import Tool
from provider_core.dialects.validation import bad_value, wrong_type
from provider_core.errors import InvalidRequest

MAX_TOOLS = 128
MAX_TOOL_NAME = 64  # characters

_SCHEMA_MAPS = frozenset({"properties", "$defs", "definitions"})
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def check_tool_name(value: Any, param: str, *, also: str = "") -> str:
    """Check a function's name.

    Args:
        value: Any JSON value.
        param: Where it stands, for errors.
        also: Characters that the dialect allows beside letters, digits, `_` and `-`.

    Raises:
        InvalidRequest: It is no string, is too long, or has another character.
    """
    if not isinstance(value, str):
        raise wrong_type(param, "a string", value)
    plain = value
    for character in also:
        plain = plain.replace(character, "_")
    if len(value) > MAX_TOOL_NAME or not _NAME.fullmatch(plain):
        listed = "".join(f", '{character}'" for character in also)
        raise bad_value(
            param,
            f"must have 1 to {MAX_TOOL_NAME} characters of a-z, A-Z, 0-9, '_', '-'{listed}",
        )
    return value


def check_schema(value: Any, param: str) -> dict[str, Any] | None:
    """Check the parts of a schema of arguments that are read before it is compiled.

    Whether all of it can be enforced shows when it is.

    Args:
        value: Any JSON value; null is no schema.
        param: Where it stands, for errors.

    Raises:
        InvalidRequest: It is no object, describes none, or one of those parts has another shape.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    if value.get("type", "object") != "object":
        message = f"{param} must be the schema of an object: its type is not 'object'"
        raise InvalidRequest(message, param=param, code="invalid_schema")
    for key in _SCHEMA_MAPS & value.keys():
        if not isinstance(value[key], dict):
            raise wrong_type(f"{param}.{key}", "an object of schemas", value[key])
    required = value.get("required", [])
    if not isinstance(required, list):
        raise wrong_type(f"{param}.required", "an array of strings", required)
    for index, name in enumerate(required):
        if not isinstance(name, str):
            raise wrong_type(f"{param}.required[{index}]", "a string", name)
    return value


def check_tools(tools: Sequence[Tool]) -> tuple[Tool, ...]:
    """Check what holds for all tools of a request together.

    Raises:
        InvalidRequest: There are too many, or two of one name.
    """
    if len(tools) > MAX_TOOLS:
        raise bad_value("tools", f"must have at most {MAX_TOOLS} items, not {len(tools)}")
    seen: set[str] = set()
    for tool in tools:
        if tool.name in seen:
            raise bad_value("tools", f"must have different names, and not {tool.name!r} twice")
        seen.add(tool.name)
    return tuple(tools)

"""Functions that a client declares, whatever its dialect: their names and their number."""

import re
from collections.abc import Sequence
from typing import Any

from provider_core.dialects.chat_request import Tool
from provider_core.dialects.validation import bad_value, wrong_type

MAX_TOOLS = 128
MAX_TOOL_NAME = 64  # characters

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
    """Check that a schema is an object; whether it can be enforced shows when it is compiled.

    Raises:
        InvalidRequest: It is anything else but null.
    """
    if value is not None and not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
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

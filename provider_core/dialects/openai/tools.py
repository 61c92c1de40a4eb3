"""The tools that a chat offers and the calls that it wants, under their new and old names."""

from collections.abc import Sequence
from typing import Any

from provider_core.dialects.declared_tools import MAX_TOOLS, check_schema, check_tool_name
from provider_core.dialects.validation import MAX_ECHO, bad_value, wrong_type
from provider_core.errors import InvalidRequest, UnsupportedParameter
from provider_core.types import Tool, ToolChoice

_MODES = ("none", "auto", "required")


def parse_tools(value: Any) -> tuple[Tool, ...]:
    """Read `tools`: null, or up to 128 functions of different names.

    Raises:
        InvalidRequest: Another shape; `param` says which and where.
        UnsupportedParameter: A tool is no function.
    """
    return check_names(
        [
            parse_function(_function(item, f"tools[{index}]"), f"tools[{index}].function")
            for index, item in enumerate(check_list(value, "tools"))
        ]
    )


def parse_functions(value: Any) -> tuple[Tool, ...]:
    """Read `functions`, which `tools` replaced; see `parse_tools`."""
    return check_names(
        [
            parse_function(item, f"functions[{index}]")
            for index, item in enumerate(check_list(value, "functions"))
        ]
    )


def check_list(value: Any, param: str) -> list[Any]:
    """The items of a list of tools; null has none.

    Raises:
        InvalidRequest: It is no array, or too long.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong_type(param, "an array", value)
    if len(value) > MAX_TOOLS:
        raise bad_value(param, f"must have at most {MAX_TOOLS} items, not {len(value)}")
    return value


def parse_function(value: Any, param: str) -> Tool:
    """Read what all dialects of OpenAI say of a function: name, description, parameters, strict.

    Raises:
        InvalidRequest: One of them is malformed; `param` is the beginning of its name.
    """
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    description = value.get("description")
    if description is not None and not isinstance(description, str):
        raise wrong_type(f"{param}.description", "a string", description)
    strict = value.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise wrong_type(f"{param}.strict", "a boolean", strict)
    return Tool(
        name=check_tool_name(value.get("name"), f"{param}.name"),
        description=description,
        parameters=check_schema(value.get("parameters"), f"{param}.parameters"),
        strict=bool(strict),
        param=f"{param}.parameters",
    )


def check_names(tools: list[Tool]) -> tuple[Tool, ...]:
    """Check that no two tools have one name.

    Raises:
        InvalidRequest: Two have; the second one's place is named.
    """
    names: set[str] = set()
    for tool in tools:
        if tool.name in names:
            param = tool.param.removesuffix("parameters") + "name"
            raise bad_value(param, f"must differ from all others, but {tool.name!r} came before")
        names.add(tool.name)
    return tuple(tools)


def parse_tool_choice(value: Any, tools: Sequence[Tool]) -> ToolChoice:
    """Read `tool_choice` in each of its forms.

    Raises:
        InvalidRequest: Another shape, a call is wanted and there is nothing to call, or a tool is
            named that is not in `tools`.
        UnsupportedParameter: It names a tool that is no function.
    """
    if value is None or isinstance(value, str):
        return choose_mode(value, tools, "tool_choice")
    if not isinstance(value, dict):
        raise wrong_type("tool_choice", "a string or an object", value)
    kind = value.get("type")
    if kind == "function":
        return choose_function(value.get("function"), tools, "tool_choice.function")
    if kind == "allowed_tools":
        allowed = value.get("allowed_tools")
        if not isinstance(allowed, dict):
            raise wrong_type("tool_choice.allowed_tools", "an object", allowed)
        named = [
            _function(item, f"tool_choice.allowed_tools.tools[{index}]")
            for index, item in enumerate(_some(allowed.get("tools"), "tool_choice.allowed_tools"))
        ]
        return choose_among(allowed.get("mode"), named, tools, "tool_choice.allowed_tools")
    raise other_kind(kind, "tool_choice.type")


def choose_mode(mode: str | None, tools: Sequence[Tool], param: str) -> ToolChoice:
    """The choice that a word makes; by default `auto` if there are tools.

    Raises:
        InvalidRequest: It is an unknown word, or requires a call of nothing.
    """
    if mode is not None and mode not in _MODES:
        raise bad_value(param, f"must be one of {', '.join(_MODES)}, not {mode[:MAX_ECHO]!r}")
    if mode == "required":
        if not tools:
            raise bad_value(param, "needs tools to choose from")
        return ToolChoice(mode="required")
    return ToolChoice(mode="auto" if tools and mode != "none" else "none")


def choose_function(value: Any, tools: Sequence[Tool], param: str) -> ToolChoice:
    """The choice of one function by an object with its name.

    Raises:
        InvalidRequest: It has no name, or one that is not in `tools`.
    """
    return ToolChoice(mode="required", names=(_named(value, tools, param),), is_named=True)


def choose_among(mode: Any, named: list[Any], tools: Sequence[Tool], param: str) -> ToolChoice:
    """The choice of some functions, each an object with its name.

    Raises:
        InvalidRequest: One is not in `tools`, or the mode is neither `auto` nor `required`.
    """
    if not isinstance(mode, str) or mode not in {"auto", "required"}:
        raise bad_value(f"{param}.mode", "must be one of auto, required")
    names = [_named(item, tools, f"{param}.tools[{index}]") for index, item in enumerate(named)]
    return ToolChoice(
        mode="auto" if mode == "auto" else "required", names=tuple(dict.fromkeys(names))
    )


def parse_function_call(value: Any, functions: Sequence[Tool]) -> ToolChoice:
    """Read `function_call`, which `tool_choice` replaced.

    Raises:
        InvalidRequest: Neither `none`, `auto` nor an object with the name of one of `functions`.
    """
    if value is None or value in ("none", "auto"):
        return choose_mode(value, functions, "function_call")
    if isinstance(value, str):
        raise bad_value(
            "function_call", f"must be none, auto or an object, not {value[:MAX_ECHO]!r}"
        )
    return choose_function(value, functions, "function_call")


def other_kind(kind: Any, param: str) -> InvalidRequest:
    """The error for a tool, or a choice of one, whose type is not served."""
    if not isinstance(kind, str):
        return wrong_type(param, "a string", kind)
    return UnsupportedParameter(
        f"{param} must be 'function': {kind[:MAX_ECHO]!r} is not supported by this server",
        param=param,
    )


def _function(item: Any, param: str) -> Any:
    """What stands under `function` in a tool."""
    if not isinstance(item, dict):
        raise wrong_type(param, "an object", item)
    if item.get("type") != "function":
        raise other_kind(item.get("type"), f"{param}.type")
    if not isinstance(item.get("function"), dict):
        raise wrong_type(f"{param}.function", "an object", item.get("function"))
    return item["function"]


def _some(value: Any, param: str) -> list[Any]:
    items = check_list(value, f"{param}.tools")
    if not items:
        raise bad_value(f"{param}.tools", "must not be empty")
    return items


def _named(value: Any, tools: Sequence[Tool], param: str) -> str:
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    name = check_tool_name(value.get("name"), f"{param}.name")
    if name not in {tool.name for tool in tools}:
        raise bad_value(f"{param}.name", f"must be that of a tool of this request, not {name!r}")
    return name

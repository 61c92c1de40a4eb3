"""Tools and the choice among them, as Anthropic writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from provider_core.dialects.chat_request import Tool, ToolChoice
from provider_core.dialects.declared_tools import check_schema, check_tool_name, check_tools
from provider_core.dialects.validation import MAX_ECHO, bad_value, wrong_type
from provider_core.errors import UnsupportedParameter


def parse_tools(values: Sequence[Any] | None) -> tuple[Tool, ...]:
    """Read `tools`.

    Args:
        values: JSON values of any kind.

    Raises:
        InvalidRequest: One has the wrong shape, a name is given twice, or there are too many.
        UnsupportedParameter: One is run by Anthropic's own servers, such as web search.
    """
    return check_tools([_tool(value, f"tools.{i}") for i, value in enumerate(values or ())])


def parse_tool_choice(value: Mapping[str, Any] | None, tools: Sequence[Tool]) -> ToolChoice:
    """Read `tool_choice`.

    Raises:
        InvalidRequest: Another type, or a tool that is not among `tools`.
    """
    if value is None:
        return ToolChoice()
    match value.get("type"):
        case "auto":
            return ToolChoice()
        case "none":
            return ToolChoice(mode="none")
        case "any":
            if not tools:
                raise bad_value("tool_choice", "may be 'any' only with tools")
            return ToolChoice(mode="required")
        case "tool":
            name = value.get("name")
            if not isinstance(name, str):
                raise wrong_type("tool_choice.name", "a string", name)
            if name not in {tool.name for tool in tools}:
                raise bad_value("tool_choice.name", "must be the name of one of the tools")
            return ToolChoice(mode="required", names=(name,), is_named=True)
        case str():
            raise bad_value("tool_choice.type", "must be one of 'auto', 'any', 'tool', 'none'")
        case other:
            raise wrong_type("tool_choice.type", "a string", other)


def parse_parallel(value: Mapping[str, Any] | None) -> bool:
    """Whether several calls may come in one answer.

    Raises:
        InvalidRequest: `disable_parallel_tool_use` is no boolean.
    """
    is_disabled = None if value is None else value.get("disable_parallel_tool_use")
    if is_disabled is not None and not isinstance(is_disabled, bool):
        raise wrong_type("tool_choice.disable_parallel_tool_use", "a boolean", is_disabled)
    return not is_disabled


def _tool(value: Any, param: str) -> Tool:
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    tool_type = value.get("type") or "custom"
    if tool_type != "custom":
        raise UnsupportedParameter(
            f"{param}: tools of type {str(tool_type)[:MAX_ECHO]!r} are not supported by this "
            "server, which runs none itself",
            param=param,
        )
    description = value.get("description")
    if description is not None and not isinstance(description, str):
        raise wrong_type(f"{param}.description", "a string", description)
    strict = value.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise wrong_type(f"{param}.strict", "a boolean", strict)
    if "input_schema" not in value:
        raise wrong_type(f"{param}.input_schema", "an object", None)
    return Tool(
        name=check_tool_name(value.get("name"), f"{param}.name"),
        description=description,
        parameters=check_schema(value["input_schema"], f"{param}.input_schema"),
        strict=bool(strict),
        param=f"{param}.input_schema",
    )

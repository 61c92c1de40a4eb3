"""Functions and the choice among them, as Google writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from provider_core.dialects.chat_request import Tool, ToolChoice
from provider_core.dialects.declared_tools import check_schema, check_tool_name, check_tools
from provider_core.dialects.google.fields import get, get_object, get_string, objects
from provider_core.dialects.google.schemas import to_json_schema
from provider_core.dialects.validation import MAX_ECHO, bad_value, wrong_type
from provider_core.errors import UnsupportedParameter

NAME_CHARACTERS = ".:"  # of functions, beside those that every dialect allows

_DECLARATIONS = ("functionDeclarations", "function_declarations")


def parse_tools(values: Any) -> tuple[Tool, ...]:
    """Read `tools`.

    Args:
        values: Any JSON value.

    Raises:
        InvalidRequest: One has the wrong shape, a name is given twice, or there are too many.
        UnsupportedParameter: One is run by Google's own servers, such as a search.
    """
    if values is None:
        return ()
    tools: list[Tool] = []
    for value, param in objects(values, "tools"):
        for key, other in value.items():
            if key not in _DECLARATIONS and other is not None:
                raise UnsupportedParameter(
                    f"{param}.{key[:MAX_ECHO]} is not supported by this server, which runs no "
                    "tools itself",
                    param=f"{param}.{key[:MAX_ECHO]}",
                )
        declarations = get(value, "functionDeclarations") or []
        for declaration, place in objects(declarations, f"{param}.functionDeclarations"):
            tools.append(_tool(declaration, place))
    return check_tools(tools)


def parse_tool_choice(config: Mapping[str, Any] | None, tools: Sequence[Tool]) -> ToolChoice:
    """Read `toolConfig`.

    Raises:
        InvalidRequest: Another mode, or a function that is not declared.
    """
    calling = get_object(config or {}, "functionCallingConfig", "toolConfig.") or {}
    param = "toolConfig.functionCallingConfig"
    mode = (get_string(calling, "mode", f"{param}.") or "AUTO").upper()
    names = get(calling, "allowedFunctionNames") or []
    if not isinstance(names, list):
        raise wrong_type(f"{param}.allowedFunctionNames", "an array of strings", names)
    known = [tool.name for tool in tools]
    if any(name not in known for name in names):
        raise bad_value(f"{param}.allowedFunctionNames", "must name functions that are declared")
    match mode:
        case "AUTO" | "MODE_UNSPECIFIED" | "VALIDATED":
            return ToolChoice(names=tuple(names))
        case "NONE":
            return ToolChoice(mode="none")
        case "ANY":
            if not tools:
                raise bad_value(f"{param}.mode", "may be ANY only with functionDeclarations")
            return ToolChoice(mode="required", names=tuple(names), is_named=len(names) == 1)
        case _:
            raise bad_value(f"{param}.mode", "must be one of AUTO, ANY, NONE, VALIDATED")


def _tool(value: dict[str, Any], param: str) -> Tool:
    name = check_tool_name(value.get("name"), f"{param}.name", also=NAME_CHARACTERS)
    place = f"{param}.parametersJsonSchema"
    parameters = get(value, "parametersJsonSchema")
    if value.get("parameters") is not None:
        place = f"{param}.parameters"
        if parameters is not None:
            raise bad_value(place, "must not be set beside parametersJsonSchema")
        parameters = to_json_schema(value["parameters"], place)
    return Tool(
        name=name,
        description=get_string(value, "description", f"{param}."),
        parameters=check_schema(parameters, place),
        param=place,
    )

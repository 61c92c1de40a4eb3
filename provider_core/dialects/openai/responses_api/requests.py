"""The body of a response request, to a chat that the server answers like any other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from provider_core.dialects.chat_request import ChatRequest, ImageSource
from provider_core.dialects.openai.constraints import plain_format, schema_constraint
from provider_core.dialects.openai.reasoning import parse_reasoning
from provider_core.dialects.openai.requests import SERVICE_TIER, shared_fields
from provider_core.dialects.openai.responses_api.input_items import parse_input
from provider_core.dialects.openai.responses_api.protocol import ResponseRequest
from provider_core.dialects.openai.sampling import pending_sampling
from provider_core.dialects.openai.tools import (
    check_list,
    check_names,
    choose_among,
    choose_function,
    choose_mode,
    other_kind,
    parse_function,
)
from provider_core.dialects.openai.unsupported import refuse_unsupported
from provider_core.dialects.validation import bad_value, validate, wrong_type
from provider_core.errors import UnsupportedParameter
from provider_core.settings import LimitSettings
from provider_core.types import Constraint, Tool, ToolChoice

_LOGPROBS = "message.output_text.logprobs"
_STATELESS = (
    "is not supported by this server, which is stateless and stores nothing: send the whole "
    "conversation as input"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedResponse(ChatRequest):
    """A response.

    Attributes:
        echo: What the request said, as the response object repeats it.
    """

    echo: Mapping[str, Any]


def parse_response(body: dict[str, Any], limits: LimitSettings) -> ParsedResponse:
    """Read the body of `POST /v1/responses`.

    Raises:
        InvalidRequest: A field is missing, malformed or out of range; `param` names it.
        UnsupportedParameter: A known field asks for what is not served.
    """
    _refuse_state(body)
    refuse_unsupported(body, is_chat=True)
    fields = validate(ResponseRequest, body)
    images: list[ImageSource] = []
    messages = parse_input(fields.input, limits.max_messages, images)
    if fields.instructions is not None:
        messages.insert(0, {"role": "system", "content": fields.instructions})
    tools = _tools(fields.tools)
    tool_choice = _tool_choice(fields.tool_choice, tools)
    return ParsedResponse(
        messages=messages,
        images=tuple(images),
        sampling=pending_sampling(
            fields,
            prompt_param="input",
            max_tokens=fields.max_output_tokens,
            logprobs=_num_logprobs(fields),
        ),
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=fields.parallel_tool_calls is not False,
        response_format=_text_format(fields),
        reasoning=parse_reasoning(fields.reasoning),
        echo=_echo(fields, tools, tool_choice),
        **shared_fields(fields),
    )


def _refuse_state(body: Mapping[str, Any]) -> None:
    for name in ("previous_response_id", "conversation", "prompt"):
        if body.get(name) is not None:
            raise UnsupportedParameter(f"{name} {_STATELESS}", param=name)
    neutral: dict[str, tuple[Callable[[Any], bool], str]] = {
        "background": (lambda value: value is False, _STATELESS),
        "truncation": (
            lambda value: value == "disabled",
            "is not supported by this server, which leaves nothing of a conversation out",
        ),
        "context_management": (lambda value: value == [], _STATELESS),
    }
    for name, (is_neutral, reason) in neutral.items():
        if body.get(name) is not None and not is_neutral(body[name]):
            raise UnsupportedParameter(f"{name} {reason}", param=name)


def _num_logprobs(fields: ResponseRequest) -> int | None:
    if _LOGPROBS in (fields.include or []):
        return fields.top_logprobs or 0
    return fields.top_logprobs or None


def _text_format(fields: ResponseRequest) -> Constraint | None:
    if fields.text is None:
        return None
    if fields.text.verbosity not in {None, "medium"}:
        message = "text.verbosity is not supported by this model"
        raise UnsupportedParameter(message, param="text.verbosity")
    if fields.text.format is None:
        return None
    if fields.text.format.get("type") == "json_schema":
        return schema_constraint(fields.text.format, "text.format")
    return plain_format(fields.text.format, "text.format")


def _tools(value: Any) -> tuple[Tool, ...]:
    tools = []
    for index, item in enumerate(check_list(value, "tools")):
        if not isinstance(item, dict):
            raise wrong_type(f"tools[{index}]", "an object", item)
        if item.get("type") != "function":
            raise other_kind(item.get("type"), f"tools[{index}].type")
        tools.append(parse_function(item, f"tools[{index}]"))
    return check_names(tools)


def _tool_choice(value: Any, tools: tuple[Tool, ...]) -> ToolChoice:
    if value is None or isinstance(value, str):
        return choose_mode(value, tools, "tool_choice")
    if not isinstance(value, dict):
        raise wrong_type("tool_choice", "a string or an object", value)
    kind = value.get("type")
    if kind == "function":
        return choose_function(value, tools, "tool_choice")
    if kind == "allowed_tools":
        named = check_list(value.get("tools"), "tool_choice.tools")
        if not named:
            raise bad_value("tool_choice.tools", "must not be empty")
        return choose_among(value.get("mode"), named, tools, "tool_choice")
    raise other_kind(kind, "tool_choice.type")


def _echo(
    fields: ResponseRequest, tools: tuple[Tool, ...], tool_choice: ToolChoice
) -> dict[str, Any]:
    """The response object's own words for what was asked; absent where nothing was."""
    reasoning = fields.reasoning
    text_format = None if fields.text is None else fields.text.format
    optional = {
        "service_tier": None if fields.service_tier is None else SERVICE_TIER,
        "user": fields.user,
        "safety_identifier": fields.safety_identifier,
        "prompt_cache_key": fields.prompt_cache_key,
    }
    return {
        "frequency_penalty": fields.frequency_penalty or 0.0,
        "instructions": fields.instructions,
        "max_output_tokens": fields.max_output_tokens,
        "max_tool_calls": fields.max_tool_calls,
        "metadata": shared_fields(fields)["metadata"],
        "parallel_tool_calls": fields.parallel_tool_calls is not False,
        "presence_penalty": fields.presence_penalty or 0.0,
        "previous_response_id": None,
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
        "store": False,
        "background": False,
        "temperature": 1.0 if fields.temperature is None else fields.temperature,
        "text": {"format": text_format or {"type": "text"}},
        "tool_choice": tool_choice.mode if fields.tool_choice is None else fields.tool_choice,
        "tools": [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": tool.strict,
            }
            for tool in tools
        ],
        "top_logprobs": fields.top_logprobs or 0,
        "top_p": 1.0 if fields.top_p is None else fields.top_p,
        "truncation": "disabled",
        **{name: value for name, value in optional.items() if value is not None},
    }

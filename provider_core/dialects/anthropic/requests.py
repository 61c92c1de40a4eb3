"""Bodies of Anthropic's routes to values that the server can serve without knowing the dialect."""

from collections.abc import Mapping
from typing import Any, get_args

import orjson

from provider_core.dialects.anthropic.messages import parse_messages
from provider_core.dialects.anthropic.protocol import MessagesRequest, PromptFields
from provider_core.dialects.anthropic.tools import parse_parallel, parse_tool_choice, parse_tools
from provider_core.dialects.anthropic.unsupported import refuse_unsupported
from provider_core.dialects.chat_request import ChatRequest, Effort, ReasoningOptions
from provider_core.dialects.prefill import is_continued
from provider_core.dialects.sampling import PendingSampling
from provider_core.dialects.stop_sequences import parse_stop_sequences
from provider_core.dialects.validation import bad_value, validate, wrong_type
from provider_core.settings import LimitSettings
from provider_core.types import Constraint

MAX_USER = 128  # characters kept of `metadata.user_id`


def parse_create(body: dict[str, Any], limits: LimitSettings) -> ChatRequest:
    """Read the body of `POST /v1/messages`.

    Raises:
        InvalidRequest: A field is missing, malformed or out of range; `param` names it.
        UnsupportedParameter: A known field asks for what is not served.
    """
    fields = validate(MessagesRequest, body)
    sampling = PendingSampling(
        prompt_param="messages",
        max_tokens=fields.max_tokens,
        temperature=1.0 if fields.temperature is None else fields.temperature,
        top_p=1.0 if fields.top_p is None else fields.top_p,
        top_k=fields.top_k or 0,
    )
    return _chat(
        fields,
        body,
        limits,
        sampling=sampling,
        stream=bool(fields.stream),
        stop=parse_stop_sequences(fields.stop_sequences, "stop_sequences"),
        user=_user(fields.metadata),
    )


def parse_count(body: dict[str, Any], limits: LimitSettings) -> ChatRequest:
    """Read the body of `POST /v1/messages/count_tokens`.

    Raises:
        InvalidRequest: As `parse_create`.
        UnsupportedParameter: As `parse_create`.
    """
    fields = validate(PromptFields, body)
    sampling = PendingSampling(prompt_param="messages", max_tokens=None)
    return _chat(fields, body, limits, sampling=sampling)


def _chat(
    fields: PromptFields,
    body: Mapping[str, Any],
    limits: LimitSettings,
    *,
    sampling: PendingSampling,
    stream: bool = False,
    stop: tuple[str, ...] = (),
    user: str | None = None,
) -> ChatRequest:
    refuse_unsupported(body)
    messages, images = parse_messages(fields.messages, fields.system, limits.max_messages)
    is_prefilled = is_continued(messages)
    tools = parse_tools(fields.tools)
    return ChatRequest(
        model=fields.model,
        sampling=sampling,
        stream=stream,
        stop=stop,
        user=user,
        messages=messages,
        images=images,
        continue_final_message=is_prefilled,
        tools=tools,
        tool_choice=parse_tool_choice(fields.tool_choice, tools),
        parallel_tool_calls=parse_parallel(fields.tool_choice),
        response_format=_response_format(fields),
        reasoning=_reasoning(fields.thinking, fields.output_config or {}),
    )


def _user(metadata: Mapping[str, Any] | None) -> str | None:
    user = None if metadata is None else metadata.get("user_id")
    if user is not None and not isinstance(user, str):
        raise wrong_type("metadata.user_id", "a string", user)
    return None if user is None else user[:MAX_USER]


def _response_format(fields: PromptFields) -> Constraint | None:
    param, value = "output_config.format", (fields.output_config or {}).get("format")
    if value is None:
        param, value = "output_format", fields.output_format
    if value is None:
        return None
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    if value.get("type") != "json_schema":
        raise bad_value(f"{param}.type", "must be 'json_schema'")
    schema = value.get("schema")
    if not isinstance(schema, dict):
        raise wrong_type(f"{param}.schema", "an object", schema)
    return Constraint(
        kind="json_schema", source=orjson.dumps(schema).decode(), param=f"{param}.schema"
    )


def _reasoning(thinking: Mapping[str, Any] | None, config: Mapping[str, Any]) -> ReasoningOptions:
    """What `thinking` asks; `output_config.effort` steers it and asks nothing by itself."""
    effort = config.get("effort")
    if effort is not None and effort not in get_args(Effort):
        raise bad_value("output_config.effort", "must be one of low, medium, high, xhigh, max")
    if thinking is None:
        return ReasoningOptions(param="thinking")
    exclude = thinking.get("display") == "omitted"
    match thinking.get("type"):
        case "disabled":
            return ReasoningOptions(enabled=False, param="thinking")
        case "adaptive":
            return ReasoningOptions(exclude=exclude, param="thinking")
        case "enabled":
            budget = thinking.get("budget_tokens")
            if isinstance(budget, bool) or not isinstance(budget, int):
                raise wrong_type("thinking.budget_tokens", "an integer", budget)
            if budget < 1:
                raise bad_value("thinking.budget_tokens", f"must be at least 1, not {budget}")
            return ReasoningOptions(
                enabled=True, effort=effort, max_tokens=budget, exclude=exclude, param="thinking"
            )
        case str():
            raise bad_value("thinking.type", "must be one of 'enabled', 'disabled', 'adaptive'")
        case other:
            raise wrong_type("thinking.type", "a string", other)

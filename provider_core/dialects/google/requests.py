"""Bodies of Google's routes to values that the server can serve without knowing the dialect."""

from collections.abc import Mapping
from typing import Any

from pydantic.alias_generators import to_camel

from provider_core.dialects.chat_request import ChatRequest, Effort, ReasoningOptions
from provider_core.dialects.google.constraints import parse_constraint
from provider_core.dialects.google.contents import parse_contents
from provider_core.dialects.google.fields import get, get_object
from provider_core.dialects.google.protocol import GenerationConfig
from provider_core.dialects.google.tools import parse_tool_choice, parse_tools
from provider_core.dialects.google.unsupported import refuse_unsupported
from provider_core.dialects.prefill import is_continued
from provider_core.dialects.sampling import PendingSampling
from provider_core.dialects.stop_sequences import parse_stop_sequences
from provider_core.dialects.validation import bad_value, validate, wrong_type
from provider_core.errors import InvalidRequest
from provider_core.settings import LimitSettings

_CONFIG = "generationConfig"
_DYNAMIC_BUDGET = -1  # the model decides
_EFFORT_BY_LEVEL: Mapping[str, Effort | None] = {
    "THINKING_LEVEL_UNSPECIFIED": None,
    "MINIMAL": "minimal",
    "LOW": "low",
    "MEDIUM": "medium",
    "HIGH": "high",
    "XHIGH": "xhigh",
}


def parse_generate(
    body: Mapping[str, Any], model: str, limits: LimitSettings, *, stream: bool
) -> ChatRequest:
    """Read the body of `:generateContent` or `:streamGenerateContent`.

    Args:
        body: A JSON object.
        model: From the path.
        limits: Of the server.
        stream: Which of the two.

    Raises:
        InvalidRequest: A field is missing, malformed or out of range; `param` names it.
        UnsupportedParameter: A known field asks for what is not served.
    """
    config_object = get_object(body, _CONFIG, "") or {}
    refuse_unsupported(body, config_object)
    config = _validate(config_object)
    n = config.candidate_count or 1
    if n > limits.max_n:
        raise bad_value(f"{_CONFIG}.candidateCount", f"must be at most {limits.max_n}, not {n}")
    messages, images = parse_contents(
        get(body, "contents"), get(body, "systemInstruction"), limits.max_messages
    )
    is_prefilled = is_continued(messages)
    tools = parse_tools(get(body, "tools"))
    return ChatRequest(
        model=model,
        sampling=_sampling(config),
        stream=stream,
        n=n,
        best_of=n,
        stop=parse_stop_sequences(config.stop_sequences, f"{_CONFIG}.stopSequences"),
        messages=messages,
        images=images,
        continue_final_message=is_prefilled,
        tools=tools,
        tool_choice=parse_tool_choice(get_object(body, "toolConfig", ""), tools),
        response_format=parse_constraint(config),
        reasoning=_reasoning(config.thinking_config or {}),
    )


def parse_count(body: Mapping[str, Any], model: str, limits: LimitSettings) -> ChatRequest:
    """Read the body of `:countTokens`: contents, or a whole request to generate.

    Raises:
        InvalidRequest: As `parse_generate`.
        UnsupportedParameter: As `parse_generate`.
    """
    inner = get_object(body, "generateContentRequest", "")
    return parse_generate(body if inner is None else inner, model, limits, stream=False)


def _validate(config: dict[str, Any]) -> GenerationConfig:
    try:
        return validate(GenerationConfig, config)
    except InvalidRequest as error:
        place = f"{_CONFIG}.{to_camel(error.param or '')}"
        message = error.message.replace(error.param or "", place, 1)
        raise InvalidRequest(message, param=place, code=error.code) from None


def _sampling(config: GenerationConfig) -> PendingSampling:
    logprobs = None
    if config.response_logprobs:
        logprobs = config.logprobs or 0
    elif config.logprobs:
        raise bad_value(f"{_CONFIG}.logprobs", "needs responseLogprobs to be true")
    return PendingSampling(
        prompt_param="contents",
        max_tokens=config.max_output_tokens,
        temperature=1.0 if config.temperature is None else config.temperature,
        top_p=1.0 if config.top_p is None else config.top_p,
        top_k=config.top_k or 0,
        presence_penalty=config.presence_penalty or 0.0,
        frequency_penalty=config.frequency_penalty or 0.0,
        seed=None if config.seed is None else config.seed % 2**64,
        logprobs=logprobs,
    )


def _reasoning(config: Mapping[str, Any]) -> ReasoningOptions:
    """What `thinkingConfig` asks; thoughts are shown only to those who ask for them."""
    param = f"{_CONFIG}.thinkingConfig"
    includes = get(config, "includeThoughts")
    if includes is not None and not isinstance(includes, bool):
        raise wrong_type(f"{param}.includeThoughts", "a boolean", includes)
    budget = get(config, "thinkingBudget")
    effort = _effort(get(config, "thinkingLevel"), f"{param}.thinkingLevel")
    if budget is not None:
        if isinstance(budget, bool) or not isinstance(budget, int):
            raise wrong_type(f"{param}.thinkingBudget", "an integer", budget)
        if budget < _DYNAMIC_BUDGET:
            raise bad_value(f"{param}.thinkingBudget", f"must be at least -1, not {budget}")
    exclude = not includes
    if budget == 0:
        return ReasoningOptions(enabled=False, exclude=exclude, param=param)
    max_tokens = None if budget == _DYNAMIC_BUDGET else budget
    is_asked = max_tokens is not None or effort is not None
    return ReasoningOptions(
        enabled=True if is_asked else None,
        effort=effort,
        max_tokens=max_tokens,
        exclude=exclude,
        param=param,
    )


def _effort(level: Any, param: str) -> Effort | None:
    if level is None:
        return None
    if not isinstance(level, str) or level.upper() not in _EFFORT_BY_LEVEL:
        raise bad_value(param, f"must be one of {', '.join(_EFFORT_BY_LEVEL)}")
    return _EFFORT_BY_LEVEL[level.upper()]

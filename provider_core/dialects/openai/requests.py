"""Request bodies to values that the server can serve without knowing the dialect."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from provider_core.dialects.chat_request import ChatRequest, ImageSource, RequestFields
from provider_core.dialects.openai.constraints import parse_constraint
from provider_core.dialects.openai.messages import parse_messages
from provider_core.dialects.openai.prompts import parse_prompts
from provider_core.dialects.openai.protocol import (
    ChatCompletionRequest,
    CompletionFields,
    CompletionRequest,
    GenerationFields,
)
from provider_core.dialects.openai.reasoning import parse_reasoning, thinking_switch
from provider_core.dialects.openai.sampling import parse_stop, pending_sampling
from provider_core.dialects.openai.tools import (
    parse_function_call,
    parse_functions,
    parse_tool_choice,
    parse_tools,
)
from provider_core.dialects.openai.unsupported import refuse_unsupported
from provider_core.dialects.prefill import is_continued
from provider_core.dialects.validation import bad_value, validate
from provider_core.settings import LimitSettings
from provider_core.types import Tool, ToolChoice

SERVICE_TIER = "default"  # whichever the client names
DEFAULT_COMPLETION_TOKENS = 16  # of text completions; a chat's default is what fits
MAX_USER = 128  # characters kept of `user`
MAX_METADATA = 16  # pairs kept
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedChat(ChatRequest):
    """A chat completion.

    Attributes:
        include_usage: The client asked for usage as a chunk of its own; `False` unless streaming.
        service_tier: Which one serves it, if the client named one.
        has_functions: It offers `functions` and reads calls in their form.
    """

    include_usage: bool = False
    service_tier: str | None = None
    has_functions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedCompletion(RequestFields):
    """A text completion.

    Attributes:
        prompts: Texts, or token ids not yet checked against the vocabulary. Choice i of prompt p
            has index `p * n + i`. An empty text is the start of a document.
        echo: Each choice's text begins with its prompt.
        include_usage: As in `ParsedChat`.
    """

    prompts: list[str | list[int]]
    echo: bool
    include_usage: bool = False


def parse_chat(body: dict[str, Any], limits: LimitSettings) -> ParsedChat:
    """Read the body of `POST /v1/chat/completions`.

    Raises:
        InvalidRequest: A field is missing, malformed or out of range; `param` names it.
        UnsupportedParameter: A known field asks for what is not served.
    """
    refuse_unsupported(body, is_chat=True)
    fields = validate(ChatCompletionRequest, body)
    images: list[ImageSource] = []
    messages = parse_messages(fields.messages, limits.max_messages, images)
    tools, tool_choice = _tools(fields)
    has_functions = bool(fields.functions)
    is_prefilled = is_continued(messages)
    logprobs = None
    if fields.logprobs:
        logprobs = fields.top_logprobs or 0
    elif fields.top_logprobs:
        raise bad_value("top_logprobs", "needs logprobs to be true")
    # The newer name wins if both are given.
    max_tokens = (
        fields.max_tokens if fields.max_completion_tokens is None else fields.max_completion_tokens
    )
    return ParsedChat(
        messages=messages,
        images=tuple(images),
        continue_final_message=is_prefilled,
        sampling=pending_sampling(
            fields,
            prompt_param="messages",
            max_tokens=max_tokens,
            logprobs=logprobs,
        ),
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=fields.parallel_tool_calls is not False and not has_functions,
        response_format=parse_constraint(body),
        reasoning=parse_reasoning(
            fields.reasoning,
            effort=fields.reasoning_effort,
            include=fields.include_reasoning,
            switch=thinking_switch(body.get("chat_template_kwargs")),
        ),
        service_tier=None if fields.service_tier is None else SERVICE_TIER,
        has_functions=has_functions,
        **_common(fields, limits),
    )


def _tools(fields: ChatCompletionRequest) -> tuple[tuple[Tool, ...], ToolChoice]:
    tools = parse_tools(fields.tools)
    functions = parse_functions(fields.functions)
    if not functions:
        parse_function_call(fields.function_call, functions)
        return tools, parse_tool_choice(fields.tool_choice, tools)
    for name in ("tools", "tool_choice"):
        if getattr(fields, name):
            raise bad_value("functions", f"must not be given beside {name}, which replaced it")
    return functions, parse_function_call(fields.function_call, functions)


def parse_completion(body: dict[str, Any], limits: LimitSettings) -> ParsedCompletion:
    """Read the body of `POST /v1/completions`.

    Raises:
        InvalidRequest: A field is missing, malformed or out of range; `param` names it.
        UnsupportedParameter: A known field asks for what is not served.
    """
    refuse_unsupported(body, is_chat=False)
    fields = validate(CompletionRequest, body)
    max_tokens = DEFAULT_COMPLETION_TOKENS if fields.max_tokens is None else fields.max_tokens
    return ParsedCompletion(
        prompts=parse_prompts(fields.prompt, limits.max_prompts),
        echo=bool(fields.echo),
        sampling=pending_sampling(
            fields,
            prompt_param="prompt",
            max_tokens=max_tokens,
            logprobs=fields.logprobs,
            prompt_logprobs=fields.logprobs if fields.echo else None,
        ),
        **_common(fields, limits),
    )


class SharedFields(TypedDict):
    """The fields of `RequestFields` that are read alike everywhere."""

    model: str
    stream: bool
    stop: tuple[str, ...]
    user: str | None
    metadata: Mapping[str, str]
    cache_salt: str


class _Common(SharedFields):
    """The fields of both completions but `sampling`."""

    include_usage: bool
    n: int
    best_of: int


def shared_fields(fields: GenerationFields) -> SharedFields:
    """Read what requests of every kind have.

    Raises:
        InvalidRequest: `stop` is malformed.
    """
    return {
        "model": fields.model,
        "stream": bool(fields.stream),
        "stop": parse_stop(fields.stop),
        "user": None if fields.user is None else fields.user[:MAX_USER],
        "metadata": _cut_metadata(fields.metadata) if fields.metadata else {},
        "cache_salt": fields.cache_salt or "",
    }


def _common(fields: CompletionFields, limits: LimitSettings) -> _Common:
    n = 1 if fields.n is None else fields.n
    if n > limits.max_n:
        raise bad_value("n", f"must be at most {limits.max_n}, not {n}")
    best_of = fields.best_of or n
    if best_of < n:
        raise bad_value("best_of", f"must be at least n ({n}), not {best_of}")
    if best_of > limits.max_n:
        raise bad_value("best_of", f"must be at most {limits.max_n}, not {best_of}")
    if best_of > n and fields.stream:
        raise bad_value("best_of", f"must equal n ({n}) when streaming, not {best_of}")
    # Without `stream` the options have no effect: clients keep them when they switch it off.
    include_usage = bool(
        fields.stream and fields.stream_options and fields.stream_options.include_usage
    )
    return {**shared_fields(fields), "include_usage": include_usage, "n": n, "best_of": best_of}


def _cut_metadata(metadata: dict[str, Any]) -> dict[str, str]:
    pairs = [(key, value) for key, value in metadata.items() if isinstance(value, str)]
    return {
        key[:MAX_METADATA_KEY]: value[:MAX_METADATA_VALUE] for key, value in pairs[:MAX_METADATA]
    }

"""The fields of chat and text completions that are honoured, with their types and ranges.

Everything is nullable, because the OpenAI specification lets null stand for absent nearly
everywhere, and strict: `true` is no integer, `"5"` no number, `5.0` no integer. Fields that are
known and not honoured are in `unsupported`; all others are ignored. What is `Any` here has a shape
of its own and is checked in the module named beside it.

Ranges: OpenAI's specification; `top_k`, `min_p`, `top_a`, `repetition_penalty` as OpenRouter's
parameters page has them; `min_tokens`, `stop_token_ids`, `ignore_eos` as vLLM names them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from provider_core.dialects.chat_request import Effort
from provider_core.dialects.openai.reasoning import ReasoningFields

MAX_STOP_TOKEN_IDS = 64

_Penalty = Annotated[float, Field(ge=-2, le=2)]
_Probability = Annotated[float, Field(ge=0, le=1)]


class StreamOptions(BaseModel):
    """`stream_options`."""

    model_config = ConfigDict(defer_build=True, strict=True, extra="ignore", frozen=True)

    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # accepted: padding against traffic analysis, not sent


class GenerationFields(BaseModel):
    """What every request for a generation has."""

    model_config = ConfigDict(
        defer_build=True, strict=True, extra="ignore", frozen=True, allow_inf_nan=False
    )

    model: str = Field(min_length=1)
    stream: bool | None = None

    min_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=2**31)  # -1 is vLLM's "off"
    min_p: _Probability | None = None
    top_a: _Probability | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    logit_bias: Any = None  # `sampling.parse_logit_bias`
    seed: int | None = None
    stop: Any = None  # `sampling.parse_stop`
    stop_token_ids: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, max_length=MAX_STOP_TOKEN_IDS
    )
    ignore_eos: bool | None = None

    user: str | None = None
    cache_salt: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    # Accepted and without effect: hints for routing, caching and abuse detection.
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: (
        Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None
    ) = None
    metadata: dict[str, Any] | None = None


class CompletionFields(GenerationFields):
    """What chat and text completions share."""

    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1)
    best_of: int | None = Field(None, ge=0, le=20)
    max_tokens: int | None = Field(None, ge=0)


class ChatCompletionRequest(CompletionFields):
    """`POST /v1/chat/completions`."""

    messages: list[Any] = Field(min_length=1)  # `messages.parse_messages`
    max_tokens: int | None = Field(None, ge=1)  # a completion may ask for none, to be scored
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)

    tools: Any = None  # `tools.parse_tools`
    tool_choice: Any = None  # `tools.parse_tool_choice`
    parallel_tool_calls: bool | None = None
    functions: Any = None  # `tools.parse_functions`
    function_call: Any = None  # `tools.parse_function_call`

    response_format: Any = None  # this and the next five: `constraints.parse_constraint`
    structured_outputs: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None

    reasoning: ReasoningFields | None = None
    reasoning_effort: Effort | None = None
    include_reasoning: bool | None = None
    # Accepted and without effect: a guess of the answer that could only make it faster.
    prediction: dict[str, Any] | None = None


class CompletionRequest(CompletionFields):
    """`POST /v1/completions`."""

    prompt: Any = None  # `prompts.parse_prompts`
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=5)

"""The fields of `POST /v1/responses` that are honoured; see `openai.protocol`.

Beside OpenAI's own fields it takes the sampling fields of chats, as OpenRouter does.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from provider_core.dialects.openai.protocol import GenerationFields, StreamOptions
from provider_core.dialects.openai.reasoning import ReasoningFields


class TextFields(BaseModel):
    """`text`."""

    model_config = ConfigDict(defer_build=True, strict=True, extra="ignore", frozen=True)

    format: dict[str, Any] | None = None  # `requests`
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponseRequest(GenerationFields):
    """`POST /v1/responses`."""

    input: Any = None  # `input_items.parse_input`
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include: list[str] | None = None
    text: TextFields | None = None
    reasoning: ReasoningFields | None = None
    tools: Any = None  # `requests`
    tool_choice: Any = None  # `requests`
    parallel_tool_calls: bool | None = None
    stream_options: StreamOptions | None = None
    # Accepted and without effect: it limits tools that run in a server, of which there are none.
    max_tool_calls: int | None = Field(None, ge=0)

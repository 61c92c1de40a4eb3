"""The fields of Anthropic's requests that are honoured, with their types and ranges.

They are strict: `true` is no integer, `"5"` no number. Known fields that are not honoured are in
`unsupported`; all others are ignored. What has a shape of its own is checked in `messages` and
`requests`.

Ranges: the types of Anthropic's Python package; `temperature` goes to 2, as in the other dialects.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class PromptFields(BaseModel):
    """What decides the prompt: all of `POST /v1/messages/count_tokens`."""

    model_config = ConfigDict(
        defer_build=True, strict=True, extra="ignore", frozen=True, allow_inf_nan=False
    )

    model: str = Field(min_length=1)
    messages: list[Any] = Field(min_length=1)  # `messages.parse_messages`
    system: Any = None  # `messages.parse_messages`
    tools: list[Any] | None = None  # `tools.parse_tools`
    tool_choice: dict[str, Any] | None = None  # `tools.parse_tool_choice`
    thinking: dict[str, Any] | None = None  # `requests`
    output_config: dict[str, Any] | None = None  # `requests`
    output_format: dict[str, Any] | None = None  # the older name of `output_config.format`


class MessagesRequest(PromptFields):
    """`POST /v1/messages`."""

    max_tokens: int = Field(ge=0)  # 0 computes the prompt only
    stream: bool | None = None
    stop_sequences: list[Any] | None = None  # `stop_sequences.parse_stop_sequences`
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, lt=2**31)
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None  # accepted and without effect: there is one tier

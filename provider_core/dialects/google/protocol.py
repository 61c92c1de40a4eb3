"""The fields of Google's `generationConfig` that are honoured, with their types and ranges.

Each has two names; see `fields`. They are strict, but for numbers that Google's own types call
floating-point: `topK` may be `40.0`. Known fields that are not honoured are in `unsupported`; all
others are ignored. What has a shape of its own is checked where its comment says.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WholeNumber = Annotated[int, BeforeValidator(_whole)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]


class GenerationConfig(BaseModel):
    """`generationConfig`."""

    model_config = ConfigDict(
        defer_build=True,
        strict=True,
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: _WholeNumber | None = Field(None, ge=0, lt=2**31)
    candidate_count: _WholeNumber | None = Field(None, ge=1)
    max_output_tokens: _WholeNumber | None = Field(None, ge=1)
    stop_sequences: list[Any] | None = None  # `stop_sequences.parse_stop_sequences`
    seed: _WholeNumber | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    response_logprobs: bool | None = None
    logprobs: _WholeNumber | None = Field(None, ge=0, le=20)
    response_mime_type: str | None = None  # `constraints.parse_constraint`
    response_schema: Any = None  # `constraints.parse_constraint`
    response_json_schema: Any = None  # `constraints.parse_constraint`
    thinking_config: dict[str, Any] | None = None  # `requests`

"""How much a chat wants the model to reason: OpenRouter's `reasoning` and OpenAI's names for it."""

from pydantic import BaseModel, ConfigDict, Field

from provider_core.dialects.chat_request import Effort, ReasoningOptions
from provider_core.dialects.validation import bad_value


class ReasoningFields(BaseModel):
    """`reasoning`."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    effort: Effort | None = None
    max_tokens: int | None = Field(None, ge=1)
    exclude: bool | None = None
    enabled: bool | None = None


def parse_reasoning(
    fields: ReasoningFields | None, *, effort: Effort | None = None, include: bool | None = None
) -> ReasoningOptions:
    """Bring the fields together that say the same.

    Args:
        fields: `reasoning`.
        effort: `reasoning_effort`.
        include: `include_reasoning`, which `reasoning.exclude` replaced.

    Raises:
        InvalidRequest: Two of them contradict each other.
    """
    fields = fields or ReasoningFields()
    if fields.effort is not None and effort is not None and fields.effort != effort:
        raise bad_value("reasoning_effort", f"must be that of reasoning ({fields.effort})")
    chosen = fields.effort or effort
    if chosen is not None and fields.max_tokens is not None:
        raise bad_value("reasoning.max_tokens", f"must not be given beside an effort ({chosen})")
    is_off = chosen == "none"
    asks = fields.max_tokens is not None or (chosen is not None and not is_off)
    if fields.enabled is not None and (asks if not fields.enabled else is_off):
        raise bad_value("reasoning.enabled", "must not contradict the rest of reasoning")
    if include is not None and fields.exclude is not None and include is fields.exclude:
        raise bad_value("include_reasoning", "must not contradict reasoning.exclude")
    enabled = fields.enabled
    if enabled is None and (asks or is_off):
        enabled = asks
    return ReasoningOptions(
        enabled=enabled,
        effort=chosen,
        max_tokens=fields.max_tokens,
        exclude=bool(fields.exclude) or include is False,
        param="reasoning" if fields.effort == chosen else "reasoning_effort",
    )

"""How much a chat wants the model to reason: OpenRouter's `reasoning` and OpenAI's names for it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from provider_core.dialects.chat_request import Effort, ReasoningOptions
from provider_core.dialects.validation import bad_value

_SWITCHES = ("enable_thinking", "thinking")


def thinking_switch(value: Any) -> bool | None:
    """What `chat_template_kwargs` says of reasoning, if that is all it says.

    It is how clients of other servers turn reasoning on and off; nothing else of a template is
    theirs to set.
    """
    if not isinstance(value, dict) or len(value) != 1:
        return None
    [(name, switch)] = value.items()
    return switch if name in _SWITCHES and isinstance(switch, bool) else None


class ReasoningFields(BaseModel):
    """`reasoning`."""

    model_config = ConfigDict(defer_build=True, strict=True, extra="ignore", frozen=True)

    effort: Effort | None = None
    max_tokens: int | None = Field(None, ge=1)
    exclude: bool | None = None
    enabled: bool | None = None


def parse_reasoning(
    fields: ReasoningFields | None,
    *,
    effort: Effort | None = None,
    include: bool | None = None,
    switch: bool | None = None,
) -> ReasoningOptions:
    """Bring the fields together that say the same.

    Args:
        fields: `reasoning`.
        effort: `reasoning_effort`.
        include: `include_reasoning`, which `reasoning.exclude` replaced.
        switch: `chat_template_kwargs.enable_thinking`, which is `reasoning.enabled`.

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
    enabled = fields.enabled if switch is None else switch
    if enabled is not None and (asks if not enabled else is_off or fields.enabled is False):
        param = "reasoning.enabled" if switch is None else "chat_template_kwargs"
        raise bad_value(param, "must not contradict the rest of reasoning")
    if include is not None and fields.exclude is not None and include is fields.exclude:
        raise bad_value("include_reasoning", "must not contradict reasoning.exclude")
    if enabled is None and (asks or is_off):
        enabled = asks
    return ReasoningOptions(
        enabled=enabled,
        effort=chosen,
        max_tokens=fields.max_tokens,
        exclude=bool(fields.exclude) or include is False,
        param=_who_asks(fields, effort, is_switched=switch is not None),
    )


def _who_asks(fields: ReasoningFields, effort: Effort | None, *, is_switched: bool) -> str:
    """The field to blame where the model does not reason."""
    if not (fields.effort or fields.enabled or fields.max_tokens):
        if effort is not None:
            return "reasoning_effort"
        if is_switched:
            return "chat_template_kwargs"
    return "reasoning"

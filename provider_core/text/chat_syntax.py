"""What a model's chat template shows of it: how it reasons and how it calls tools."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from provider_core.errors import ConfigurationError
from provider_core.interfaces import ChatTemplate, Tokenizer
from provider_core.text.reasoning import REASONING_FAMILIES, ReasoningSyntax
from provider_core.text.reasoning_control import ReasoningIds
from provider_core.text.tool_parsers import TOOL_FAMILIES, ToolFamily
from provider_core.types import ModelSpec

SWITCHES = ("enable_thinking", "thinking")
"""Variables that turn reasoning on and off, as templates name them."""

_VARIABLES = frozenset({*SWITCHES, "reasoning_effort", "thinking_budget"})
_WORD = re.compile(r"\w+")
_Family = TypeVar("_Family")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSyntax:
    """How one model's replies are read.

    Attributes:
        tools: The family of its calls; `None` if it takes no tools.
        reasoning: Its tags; `None` if it does not reason.
        reasoning_ids: Those as ids; `None` with `reasoning`.
        variables: What its template reads of `_VARIABLES`.
    """

    tools: ToolFamily | None = None
    reasoning: ReasoningSyntax | None = None
    reasoning_ids: ReasoningIds | None = None
    variables: frozenset[str] = field(default_factory=frozenset)


def read_chat_syntax(
    spec: ModelSpec, template: ChatTemplate | None, tokenizer: Tokenizer
) -> ChatSyntax:
    """Find out how a model writes, once when it is loaded.

    Raises:
        ConfigurationError: `tool_parser` or `reasoning_parser` names no family.
    """
    source = "" if template is None else template.source
    words = frozenset(_WORD.findall(source))
    tools = _named(spec.tool_parser, TOOL_FAMILIES, f"tool_parser of {spec.id}")
    if tools is None and "tools" in words:
        tools = next(family for family in TOOL_FAMILIES.values() if family.shows_in(source))
    reasoning = _named(
        spec.reasoning_parser, REASONING_FAMILIES, f"reasoning_parser of {spec.id}"
    ) or next((tags for tags in REASONING_FAMILIES.values() if tags.open in source), None)
    return ChatSyntax(
        tools=tools if "tools" in words else None,
        reasoning=reasoning,
        reasoning_ids=_tag_ids(reasoning, spec, tokenizer) if reasoning else None,
        variables=_VARIABLES & words,
    )


def _named(name: str | None, families: Mapping[str, _Family], setting: str) -> _Family | None:
    if name is None:
        return None
    if name not in families:
        known = ", ".join(families)
        raise ConfigurationError(f"{setting}: {name!r} is none of {known}")
    return families[name]


def _tag_ids(tags: ReasoningSyntax, spec: ModelSpec, tokenizer: Tokenizer) -> ReasoningIds:
    gaps = [tokenizer.encode(text, allow_special=False) for text in ("\n", "\n\n")]
    return ReasoningIds(
        open=tuple(tokenizer.encode(tags.open, allow_special=True)),
        close=tuple(tokenizer.encode(tags.close, allow_special=True)),
        gap=frozenset(ids[0] for ids in gaps if len(ids) == 1),
        eos=spec.eos_token_ids,
    )

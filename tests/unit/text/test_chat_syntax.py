"""What chat templates show of their models."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from provider_core.errors import ConfigurationError
from provider_core.interfaces import RenderedPrompt
from provider_core.text.chat_syntax import ChatSyntax, read_chat_syntax
from provider_core.types import ModelSpec
from tests.unit.text.generation_session import EOS, TOKENIZER, ids_of


class Template:
    """A template that is only looked at."""

    def __init__(self, source: str) -> None:
        self.source = source

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],  # JSON
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> RenderedPrompt:
        """Never asked for."""
        raise NotImplementedError


def syntax_of(source: str, **fields: str) -> ChatSyntax:
    """What is read of a template's text."""
    spec = ModelSpec(id="m", source="x", eos_token_ids=frozenset({EOS}), **fields)  # type: ignore[arg-type]
    return read_chat_syntax(spec, Template(source), TOKENIZER)


def test_a_template_that_shows_no_tools_takes_none() -> None:
    """Whatever markup it may know; the parser's name changes nothing of that."""
    assert syntax_of("{{ messages }}<tool_call>").tools is None
    assert syntax_of("{{ messages }}", tool_parser="hermes").tools is None
    assert read_chat_syntax(ModelSpec(id="m", source="x"), None, TOKENIZER) == ChatSyntax()


def test_a_named_parser_wins_over_what_the_template_shows() -> None:
    """For models that were trained with another syntax."""
    tools = syntax_of("{{ tools }}<tool_call>", tool_parser="llama3").tools
    assert tools
    assert tools.name == "llama3"


@pytest.mark.parametrize(
    ("source", "tags"),
    [
        ("<think>\n", ("<think>", "</think>")),
        ("[THINK]", ("[THINK]", "[/THINK]")),
        ("<|channel|>analysis<|message|>", ("<|channel|>analysis<|message|>", "<|end|>")),
        ("<seed:think>", ("<seed:think>", "</seed:think>")),
        ("message.content.split('</think>')", None),
        ("{{ messages }}", None),
    ],
)
def test_reasoning_is_known_by_its_opening_tag(source: str, tags: tuple[str, str] | None) -> None:
    """A template that only cuts it out of the history may be of a model without."""
    reasoning = syntax_of(source).reasoning
    assert (None if reasoning is None else (reasoning.open, reasoning.close)) == tags


def test_tags_are_found_as_ids() -> None:
    """However many."""
    syntax = syntax_of("{{ tools }} enable_thinking reasoning_effort", reasoning_parser="think")
    assert syntax.reasoning_ids
    assert syntax.reasoning_ids.open == tuple(ids_of("<think>"))
    assert syntax.reasoning_ids.close == tuple(ids_of("</think>"))
    assert syntax.reasoning_ids.gap == frozenset(ids_of("\n"))
    assert syntax.variables == {"enable_thinking", "reasoning_effort"}


@pytest.mark.parametrize("setting", ["tool_parser", "reasoning_parser"])
def test_an_unknown_parser_is_a_configuration_error(setting: str) -> None:
    """It names the setting, the value and what there is."""
    with pytest.raises(ConfigurationError, match=f"{setting} of m: 'hermess' is none of"):
        syntax_of("{{ tools }}", **{setting: "hermess"})

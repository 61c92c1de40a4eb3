"""Llama 3: `{"name": ..., "parameters": {...}}` and nothing else, several with `;` between them.

The template asks for exactly that. `<|python_tag|>` before it is what Llama writes of itself for
the tools that it was trained with.
"""

from collections.abc import Sequence

from provider_core.text.tool_parsers.json_calls import bare_calls_reader
from provider_core.text.tool_parsers.reading import FamilyParser
from provider_core.tool_calling import ToolSyntax
from provider_core.types import Tool

_TAG = "<|python_tag|>"

_SYNTAX = ToolSyntax(
    before_name='{"name": "',
    after_name='", "parameters": ',
    after_arguments="}",
    separator="; ",
    control_tokens=(_TAG,),
)


def make_parser(tools: Sequence[Tool]) -> FamilyParser:
    """The parser of a request: a name of one of its tools tells a call from other JSON."""
    return FamilyParser(_SYNTAX, bare_calls_reader(tools, [_TAG]))

"""Models of no known family: `{"name": ..., "arguments": {...}}`, bare or in a code fence."""

from collections.abc import Sequence

from provider_core.text.tool_parsers.json_calls import bare_calls_reader
from provider_core.text.tool_parsers.reading import FamilyParser
from provider_core.tool_calling import ToolSyntax
from provider_core.types import Tool

_SYNTAX = ToolSyntax(
    before_name='{"name": "',
    after_name='", "arguments": ',
    after_arguments="}",
    separator="\n",
)


def make_parser(tools: Sequence[Tool]) -> FamilyParser:
    """The parser of a request: a name of one of its tools tells a call from other JSON."""
    return FamilyParser(_SYNTAX, bare_calls_reader(tools, ["```json\n"], "```"))

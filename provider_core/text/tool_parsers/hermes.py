r"""Hermes, Qwen 2.5 and Qwen 3: `<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>`."""

from provider_core.text.tool_parsers.json_calls import json_calls_reader
from provider_core.text.tool_parsers.reading import FamilyParser
from provider_core.tool_calling import ToolSyntax

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"

PARSER = FamilyParser(
    ToolSyntax(
        before_name=f'{_OPEN}\n{{"name": "',
        after_name='", "arguments": ',
        after_arguments=f"}}\n{_CLOSE}",
        separator="\n",
        trigger=_OPEN,
        control_tokens=(_OPEN, _CLOSE),
    ),
    json_calls_reader([_OPEN], _CLOSE),
)

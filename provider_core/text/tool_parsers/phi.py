"""Phi 4 mini and Granite 3: `<|tool_call|>[{"name": ..., "arguments": {...}}, ...]`.

Phi closes the list with `<|/tool_call|>`, and writes `functools` for the opening at times.
"""

from dataclasses import replace

from provider_core.text.tool_parsers.json_calls import json_calls_reader
from provider_core.text.tool_parsers.reading import FamilyParser
from provider_core.tool_calling import ToolSyntax

_OPEN, _CLOSE = "<|tool_call|>", "<|/tool_call|>"
_READER = json_calls_reader([_OPEN, "functools["], _CLOSE)
_SYNTAX = ToolSyntax(
    begin=f"{_OPEN}[",
    before_name='{"name": "',
    after_name='", "arguments": ',
    after_arguments="}",
    separator=", ",
    end=f"]{_CLOSE}",
    trigger=_OPEN,
    control_tokens=(_OPEN, _CLOSE),
)

PHI = FamilyParser(_SYNTAX, _READER)
GRANITE = FamilyParser(replace(_SYNTAX, end="]"), _READER)

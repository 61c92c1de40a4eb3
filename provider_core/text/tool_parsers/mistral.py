"""Mistral: JSON objects in a list behind `[TOOL_CALLS]`; newer: `[TOOL_CALLS]name[ARGS]{...}`.

Some write `[CALL_ID]` and an id between the name and the arguments. Ids are the server's.
"""

from provider_core.text.incremental import Markers, Parse
from provider_core.text.tool_parsers.json_calls import read_calls
from provider_core.text.tool_parsers.json_values import ignore, stream_arguments
from provider_core.text.tool_parsers.reading import MAX_HEADER_CHARS, CallSource, FamilyParser
from provider_core.tool_calling import ToolSyntax

_OPEN, _ARGUMENTS, _CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
_CONTROL = (_OPEN, _ARGUMENTS, _CALL_ID)
_OPENERS = Markers([_OPEN])
_NAME_ENDS = Markers([_ARGUMENTS, _CALL_ID])
_ID_ENDS = Markers([_ARGUMENTS])


def _read(source: CallSource) -> Parse[None]:
    while marker := (yield from source.until(_OPENERS, source.say)):
        source.begin_attempt(marker)
        if (yield from source.peek_solid()) in "[{" and not (yield from source.starts(_OPEN)):
            yield from read_calls(source)
        else:
            yield from _read_named(source)


def _read_named(source: CallSource) -> Parse[None]:
    pieces: list[str] = []
    found = yield from source.until(_NAME_ENDS, pieces.append, limit=MAX_HEADER_CHARS)
    name = "".join(pieces).strip()
    if found == _CALL_ID:
        found = yield from source.until(_ID_ENDS, ignore, limit=MAX_HEADER_CHARS)
    if not (found and name):
        source.give_up()
        return
    source.start_call(name)
    yield from stream_arguments(source, (_OPEN,))
    source.end_call()


LISTED = FamilyParser(
    ToolSyntax(
        begin=f"{_OPEN}[",
        before_name='{"name": "',
        after_name='", "arguments": ',
        after_arguments="}",
        separator=", ",
        end="]",
        trigger=_OPEN,
        control_tokens=_CONTROL,
    ),
    _read,
)
NAMED = FamilyParser(
    ToolSyntax(
        before_name=_OPEN,
        after_name=_ARGUMENTS,
        after_arguments="",
        trigger=_OPEN,
        control_tokens=_CONTROL,
    ),
    _read,
)

"""DeepSeek: names and arguments between tags of full-width bars.

V3.1 writes `NAME<sep>{...}` in each call; V3 and R1 write `function<sep>NAME` and the arguments in
a code fence.
"""

from provider_core.text.incremental import Markers, Parse
from provider_core.text.tool_parsers.json_values import ignore, stream_arguments
from provider_core.text.tool_parsers.reading import MAX_HEADER_CHARS, CallSource, FamilyParser
from provider_core.tool_calling import ToolSyntax


def _tag(name: str) -> str:
    bar = "\N{FULLWIDTH VERTICAL LINE}"
    return f"<{bar}{name.replace(' ', chr(0x2581))}{bar}>"


_BEGIN, _END = _tag("tool calls begin"), _tag("tool calls end")
_CALL_BEGIN, _CALL_END = _tag("tool call begin"), _tag("tool call end")
_SEPARATOR = _tag("tool sep")
_FENCE, _FENCE_END = "\n```json\n", "```"
_CONTROL = (_BEGIN, _END, _CALL_BEGIN, _CALL_END, _SEPARATOR)
_OPENERS = Markers([_BEGIN, _CALL_BEGIN])
_SEPARATORS = Markers([_SEPARATOR])
_NAME_ENDS = Markers(["\n", "{"])
_CALL_ENDS = Markers([_CALL_END, _END])


def _read(source: CallSource) -> Parse[None]:
    while marker := (yield from source.until(_OPENERS, source.say)):
        source.begin_attempt(marker)
        if marker == _BEGIN:
            yield from source.peek_solid()
            if not (yield from source.skip(_CALL_BEGIN)):
                source.give_up()
                continue
        while (yield from _read_call(source)):
            source.is_in_markup = True
            yield from source.peek_solid()
            if (yield from source.skip(_END)) or not (yield from source.skip(_CALL_BEGIN)):
                break
            source.begin_attempt(_CALL_BEGIN)
        source.is_in_call = source.is_in_markup = False


def _read_call(source: CallSource) -> Parse[bool]:
    name, found = yield from _read_text(source, _SEPARATORS)
    if found and name == "function":
        name, found = yield from _read_text(source, _NAME_ENDS)
        yield from source.peek_solid()
        yield from source.skip(_FENCE.lstrip())
    if not (found and name):
        source.give_up()
        return False
    source.start_call(name)
    yield from stream_arguments(source, (_FENCE_END, _CALL_END, _END))
    source.end_call()
    source.is_in_markup = True
    return (yield from source.until(_CALL_ENDS, ignore)) == _CALL_END


def _read_text(source: CallSource, ends: Markers) -> Parse[tuple[str, str]]:
    pieces: list[str] = []
    found = yield from source.until(ends, pieces.append, limit=MAX_HEADER_CHARS)
    return "".join(pieces).strip(), found


V3 = FamilyParser(
    ToolSyntax(
        begin=_BEGIN,
        before_name=f"{_CALL_BEGIN}function{_SEPARATOR}",
        after_name=_FENCE,
        after_arguments=f"\n{_FENCE_END}{_CALL_END}",
        separator="\n",
        end=_END,
        trigger=_BEGIN,
        control_tokens=_CONTROL,
    ),
    _read,
)
V31 = FamilyParser(
    ToolSyntax(
        begin=_BEGIN,
        before_name=_CALL_BEGIN,
        after_name=_SEPARATOR,
        after_arguments=_CALL_END,
        end=_END,
        trigger=_BEGIN,
        control_tokens=_CONTROL,
    ),
    _read,
)

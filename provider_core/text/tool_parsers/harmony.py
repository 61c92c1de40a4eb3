"""gpt-oss, in OpenAI's harmony format: messages on channels, each with a header of its own.

A message is `<|start|>assistant<|channel|>CHANNEL to=functions.NAME <|constrain|>json<|message|>`
and its text, up to `<|end|>`, `<|call|>` or `<|return|>`; the prompt has written the first
`<|start|>assistant`. The first message on the channel `analysis` is the reasoning, which
`reasoning` has split off; later ones are told to nobody.
"""

import re

from provider_core.text.incremental import Markers, Parse
from provider_core.text.tool_parsers.json_values import ignore, stream_arguments
from provider_core.text.tool_parsers.reading import MAX_HEADER_CHARS, CallSource, FamilyParser
from provider_core.tool_calling import ToolSyntax

_START, _CHANNEL, _MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
_END, _CALL, _RETURN = "<|end|>", "<|call|>", "<|return|>"
_ENDS = (_START, _CHANNEL, _END, _CALL, _RETURN)
_TEXT_ENDS = Markers(_ENDS)
_HEADER_ENDS = Markers([_MESSAGE])
_RECIPIENT = re.compile(r"\bto=functions\.([\w.:-]+)")
_ANALYSIS = re.compile(r"\banalysis\b")
_NEXT = f"{_END}{_START}assistant"


def _read(source: CallSource) -> Parse[None]:
    while marker := (yield from source.until(_TEXT_ENDS, source.say)):
        if marker in {_START, _CHANNEL}:
            source.is_in_markup = True  # a header that is cut off is no content
            header: list[str] = []
            yield from source.until(_HEADER_ENDS, header.append, limit=MAX_HEADER_CHARS)
            yield from _read_message(source, "".join(header))
            source.is_in_markup = False


def _read_message(source: CallSource, header: str) -> Parse[None]:
    """Read what is no content; leave what is."""
    if called := _RECIPIENT.search(header):
        source.start_call(called[1])
        yield from stream_arguments(source, _ENDS)
        source.end_call()
        yield from source.until(_TEXT_ENDS, ignore)
    elif _ANALYSIS.search(header):
        yield from source.until(_TEXT_ENDS, ignore)


PARSER = FamilyParser(
    ToolSyntax(
        before_name=f"{_CHANNEL}commentary to=functions.",
        after_name=f" <|constrain|>json{_MESSAGE}",
        after_arguments="",
        answer_opening=f"{_CHANNEL}final{_MESSAGE}",
        asides=(
            (f"{_CHANNEL}analysis{_MESSAGE}", _NEXT),
            (f"{_CHANNEL}commentary{_MESSAGE}", _NEXT),
        ),
        control_tokens=(_START, _CHANNEL, _MESSAGE, "<|constrain|>", _END, _CALL, _RETURN),
    ),
    _read,
)

"""FunctionGemma and Gemma 4: `call:NAME{key:value,...}`, strings between tags, told as JSON.

Keys stand without quotes; numbers, booleans, lists and objects look as in JSON otherwise. The two
differ in their tags only.
"""

import json
import re
from dataclasses import dataclass

from provider_core.text.incremental import Markers, Parse
from provider_core.text.json_syntax import is_json
from provider_core.text.tool_parsers.json_values import ignore, read_value
from provider_core.text.tool_parsers.reading import MAX_HEADER_CHARS, CallSource, FamilyParser
from provider_core.tool_calling import ToolSyntax

_MAX_DEPTH = 64  # of lists and objects within each other
_NAME_ENDS = Markers(["{"])
_KEY_ENDS = Markers([":"])
_SCALAR_END = re.compile(r"[,}\]]")


@dataclass(frozen=True, slots=True)
class _Tags:
    """Around a call, and on either side of a string."""

    open: str
    close: str
    quote: str


class _Reader:
    """Reads whole replies with one family's tags."""

    def __init__(self, tags: _Tags) -> None:
        self._tags = tags
        self._openers = Markers([tags.open])
        self._closers = Markers([tags.close])
        self._quotes = Markers([tags.quote])

    def read(self, source: CallSource) -> Parse[None]:
        while marker := (yield from source.until(self._openers, source.say)):
            source.begin_attempt(marker)
            name: list[str] = []
            yield from source.peek_solid()
            if not (
                (yield from source.skip("call:"))
                and (yield from source.until(_NAME_ENDS, name.append, limit=MAX_HEADER_CHARS))
                and "".join(name).strip()
            ):
                source.give_up()
                continue
            source.start_call("".join(name).strip())
            if (yield from self._read_object(source, 0)):
                source.end_call()
                source.is_in_markup = True
            yield from source.until(self._closers, ignore)
            source.is_in_call = source.is_in_markup = False

    def _read_object(self, source: CallSource, depth: int) -> Parse[bool]:
        """Read what follows the opening brace; `False` if it is nested too deep."""
        before = "{"
        while (character := (yield from source.peek_solid())) != "}":
            if character == ",":
                source.take(1)
                continue
            key: list[str] = []
            if (yield from source.skip(self._tags.quote)):
                yield from source.until(self._quotes, key.append)
                yield from source.until(_KEY_ENDS, ignore)
            else:
                yield from source.until(_KEY_ENDS, key.append)
            name = "".join(key).strip().strip('"')
            source.tell_arguments(f"{before}{_quoted(name)}: ")
            before = ", "
            if not (yield from self._read_value(source, depth)):
                return False
        source.take(1)
        source.tell_arguments("{}" if before == "{" else "}")
        return True

    def _read_list(self, source: CallSource, depth: int) -> Parse[bool]:
        source.tell_arguments("[")
        before = ""
        while (character := (yield from source.peek_solid())) != "]":
            if character == ",":
                source.take(1)
                continue
            if before:
                source.tell_arguments(before)
            before = ", "
            if not (yield from self._read_value(source, depth)):
                return False
        source.take(1)
        source.tell_arguments("]")
        return True

    def _read_value(self, source: CallSource, depth: int) -> Parse[bool]:
        character = yield from source.peek_solid()
        if character in "{[":
            if depth == _MAX_DEPTH:
                return False
            source.take(1)
            read = self._read_object if character == "{" else self._read_list
            return (yield from read(source, depth + 1))
        if character == '"':
            yield from read_value(source, source.tell_arguments)
        elif (yield from source.skip(self._tags.quote)):
            source.tell_arguments('"')
            yield from source.until(
                self._quotes, lambda text: source.tell_arguments(_quoted(text)[1:-1])
            )
            source.tell_arguments('"')
        else:
            yield from self._read_scalar(source)
        return True

    def _read_scalar(self, source: CallSource) -> Parse[None]:
        pieces: list[str] = []
        yield from source.scan(_scalar_end, pieces.append)
        text = "".join(pieces).strip()
        source.tell_arguments(text if is_json(text) else _quoted(text))


def _scalar_end(text: str, begin: int) -> int:
    found = _SCALAR_END.search(text, begin)
    return found.start() if found else -1


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _parser(tags: _Tags) -> FamilyParser:
    syntax = ToolSyntax(
        before_name=f"{tags.open}call:",
        after_name="{",
        after_arguments=tags.close,
        trigger=tags.open,
        is_free=True,
        control_tokens=(tags.open, tags.close, tags.quote),
    )
    return FamilyParser(syntax, _Reader(tags).read)


FUNCTION_GEMMA = _parser(_Tags("<start_function_call>", "<end_function_call>", "<escape>"))
GEMMA_4 = _parser(_Tags("<|tool_call>", "<tool_call|>", '<|"|>'))

"""Reading JSON that a model writes, piece by piece and without ever building what it says."""

import json
import re
from collections.abc import Callable, Sequence

from provider_core.text.incremental import Parse
from provider_core.text.tool_parsers.reading import CallSource

_JSON_STOPS = re.compile(r'["\[\]{}]')
_STRING_STOPS = re.compile(r'["\\]')
_SCALAR_END = re.compile(r"[\s,\]}]")


def stream_arguments(source: CallSource, ends: Sequence[str] = ()) -> Parse[None]:
    """Read a JSON value and tell it as arguments, as it is written.

    An object without members is told as `{}`, in one piece; so is nothing (`null`, `""`). A string
    that holds an object is told as that object.

    Args:
        source: Read up to the end of the value.
        ends: Markup that follows a call; where it stands in the value's place, nothing was written.
    """
    character = yield from source.peek_solid()
    if character == "{":
        yield from _stream_object(source)
        return
    for end in ends:
        if (yield from source.starts(end)):
            source.tell_arguments("{}")
            return
    source.tell_arguments((yield from collect_arguments(source)))


def read_string(source: CallSource) -> Parse[str | None]:
    """Read a JSON string, white space before it included; `None` if it is none."""
    if (yield from source.peek_solid()) != '"':
        return None
    pieces: list[str] = []
    yield from read_value(source, pieces.append)
    try:
        decoded = json.loads("".join(pieces), strict=False)
    except ValueError:
        return None
    return decoded if isinstance(decoded, str) else None


def _stream_object(source: CallSource) -> Parse[None]:
    source.take(1)
    if (yield from source.peek_solid()) == "}":
        source.take(1)
        source.tell_arguments("{}")
        return
    source.tell_arguments("{")
    yield from source.scan(_ValueEnd(depth=1), source.tell_arguments)


def collect_arguments(source: CallSource) -> Parse[str]:
    """Read a JSON value whole and return it as arguments; see `stream_arguments`."""
    pieces: list[str] = []
    yield from read_value(source, pieces.append)
    text = "".join(pieces)
    try:
        value = json.loads(text)
        if isinstance(value, str):
            text = value.strip()
            value = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return text
    return text if value else "{}"


def read_value(source: CallSource, tell: Callable[[str], None]) -> Parse[None]:
    """Read one JSON value that begins here, without checking what is inside it."""
    character = yield from source.peek()
    if character in '"{[':
        yield from source.scan(_ValueEnd(), tell)
    else:
        yield from source.scan(_scalar_end, tell)


def _scalar_end(text: str, begin: int) -> int:
    found = _SCALAR_END.search(text, begin)
    return found.start() if found else -1


class _ValueEnd:
    """Finds the end of a JSON string, array or object, over any number of texts.

    Args:
        depth: Brackets that were opened before.
    """

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self._is_in_string = False
        self._is_escaped = False

    def __call__(self, text: str, begin: int) -> int:
        """Go on with the next text; the end of the value, or -1 if it lies beyond."""
        if self._is_escaped and begin < len(text):
            begin += 1
            self._is_escaped = False
        while found := (_STRING_STOPS if self._is_in_string else _JSON_STOPS).search(text, begin):
            begin = found.end()
            match found[0]:
                case '"':
                    self._is_in_string = not self._is_in_string
                case "\\":
                    if begin == len(text):
                        self._is_escaped = True
                        return -1
                    begin += 1
                    continue
                case "{" | "[":
                    self._depth += 1
                case _:
                    self._depth -= 1
            if not self._depth and not self._is_in_string:
                return begin
        return -1


def ignore(text: str) -> None:
    """Tell nobody."""

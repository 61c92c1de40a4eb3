"""Calls that are JSON objects with a name and arguments."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from provider_core.text.incremental import Markers, Parse
from provider_core.text.tool_parsers.json_values import (
    collect_arguments,
    ignore,
    read_string,
    read_value,
    stream_arguments,
)
from provider_core.text.tool_parsers.reading import CallSource, Reader
from provider_core.types import Tool

_ARGUMENTS_KEYS = frozenset({"arguments", "parameters"})
_OTHER_KEYS = frozenset({"id", "type"})  # that a call may have before its name
_VALUE_START = frozenset('"{[-0123456789tfn')


class JsonCall:
    """Reads one call, its name and its arguments in either order.

    Args:
        source: Stands before it, or before white space.
        names: Of all tools, if nothing but its name tells a call from other JSON.
    """

    def __init__(self, source: CallSource, names: AbstractSet[str] | None = None) -> None:
        self._source = source
        self._names = names
        self._early: str | None = None  # arguments that came before the name
        self._has_arguments = False

    def read(self) -> Parse[bool]:
        """Read it.

        Returns:
            Whether it is one, and whole. If not, it was told only in so far as the source
            `is_in_call`.
        """
        source = self._source
        if (yield from source.peek_solid()) != "{":
            return False
        source.take(1)
        while (character := (yield from source.peek_solid())) != "}":
            if character == ",":
                source.take(1)
            elif not (yield from self._read_member()):
                return False
        source.take(1)
        if not source.is_in_call:
            return False
        if not self._has_arguments:
            source.tell_arguments("{}")
        source.end_call()
        return True

    def _read_member(self) -> Parse[bool]:
        source = self._source
        key = yield from read_string(source)
        if key is None or (yield from source.peek_solid()) != ":":
            return False
        source.take(1)
        if (yield from source.peek_solid()) not in _VALUE_START:
            return False
        if key == "name" and not source.is_in_call:
            return (yield from self._read_name())
        if key in _ARGUMENTS_KEYS and not self._has_arguments:
            yield from self._read_arguments()
        elif source.is_in_call or key in _OTHER_KEYS:
            yield from read_value(source, ignore)
        else:
            return False
        return True

    def _read_name(self) -> Parse[bool]:
        name = yield from read_string(self._source)
        if not name or (self._names is not None and name not in self._names):
            return False
        self._source.start_call(name)
        if self._early is not None:
            self._tell_early(self._early)
        return True

    def _tell_early(self, arguments: str) -> None:
        self._has_arguments = True
        self._source.tell_arguments(arguments)

    def _read_arguments(self) -> Parse[None]:
        if self._source.is_in_call:
            self._has_arguments = True
            yield from stream_arguments(self._source)
        else:
            self._early = yield from collect_arguments(self._source)


def read_calls(
    source: CallSource, *, closer: str = "", names: AbstractSet[str] | None = None
) -> Parse[None]:
    """Read what an opening leads to: calls one behind the other or in a list, and a closing.

    What begins with no call is content, as it stands. Behind a call that breaks off, everything up
    to the closing is dropped.

    Args:
        source: Recording an attempt, which holds the opening.
        closer: What closes it, though it may be missing; if empty nothing does.
        names: See `JsonCall`.
    """
    if (yield from source.peek_solid()) == "[":
        source.take(1)
    while (yield from JsonCall(source, names).read()):
        source.is_in_markup = True
        while (character := (yield from source.peek_solid())) in ",;]":
            source.take(1)
        if (closer and (yield from source.skip(closer))) or character != "{":
            break
        source.begin_attempt("")
    else:
        if not source.is_in_call:
            source.give_up()
        elif closer:
            yield from source.until(Markers([closer]), ignore)
    source.is_in_call = source.is_in_markup = False


def json_calls_reader(openers: Sequence[str], closer: str = "") -> Reader:
    """Return a reader of replies in which an opening leads to calls."""
    markers = Markers(openers)

    def read(source: CallSource) -> Parse[None]:
        while marker := (yield from source.until(markers, source.say)):
            source.begin_attempt(marker)
            yield from read_calls(source, closer=closer)

    return read


def bare_calls_reader(tools: Sequence[Tool], openers: Sequence[str], closer: str = "") -> Reader:
    """Return a reader of replies that are calls without any markup, or none.

    Such a reply begins with JSON that names one of the tools; or anything that an opening leads to
    does.
    """
    names = frozenset(tool.name for tool in tools)
    markers = Markers(openers)

    def read(source: CallSource) -> Parse[None]:
        source.begin_attempt("")
        if (yield from source.peek_solid()) in "[{":
            yield from read_calls(source, names=names)
        else:
            source.give_up()
        while marker := (yield from source.until(markers, source.say)):
            source.begin_attempt(marker)
            yield from read_calls(source, closer=closer, names=names)

    return read

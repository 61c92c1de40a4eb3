"""A reply that is read for calls: what all families' parsers read from and tell to."""

from collections.abc import Callable
from dataclasses import dataclass

from provider_core.text.incremental import Parse, Source, run
from provider_core.tool_calling import (
    CallArguments,
    CallEnd,
    CallStart,
    ToolPiece,
    ToolStream,
    ToolSyntax,
)

MAX_HEADER_CHARS = 1024
"""Of what precedes the arguments of a call; what is longer is no call."""


class CallSource(Source):
    """A reply that is read for calls, and what was found in it.

    White space is no content if there is nothing else before a call, between two or behind one.

    Attributes:
        pieces: Found since the last `drain`.
        is_in_call: A call has started and not ended.
        is_in_markup: Behind a call, what follows is no content before the block is closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[ToolPiece] = []
        self.is_in_call = False
        self.is_in_markup = False
        self._has_called = False
        self._has_said = False  # since the start or the last call
        self._space = ""  # all content since then, while it is nothing but white space

    @property
    def num_held(self) -> int:
        """Characters of which nothing was told."""
        return super().num_held + len(self._space)

    def drain(self) -> list[ToolPiece]:
        """Return the pieces found since the last time."""
        pieces, self.pieces = self.pieces, []
        return pieces

    def say(self, text: str) -> None:
        """Tell content."""
        if not self._has_said:
            text, self._space = self._space + text, ""
            if not text.strip():
                self._space = text
                return
            self._has_said = True
        self.pieces.append(text)

    def give_up(self) -> None:
        """What was read since `begin_attempt` is no call but content."""
        self.say(self.end_attempt())

    def start_call(self, name: str) -> None:
        """What was read since `begin_attempt` is a call."""
        self.end_attempt()
        self.is_in_call = True
        self._space = ""
        self.pieces.append(CallStart(name))

    def tell_arguments(self, text: str) -> None:
        """Tell a fragment of the call's arguments."""
        self.pieces.append(CallArguments(text))

    def end_call(self) -> None:
        """The call is whole."""
        self.pieces.append(CallEnd())
        self.is_in_call = False
        self._has_called = True
        self._has_said = False

    def finish(self) -> None:
        """Tell what is left at the end of the text."""
        text = self.end_attempt() + self.rest()
        if text and not (self.is_in_call or self.is_in_markup):
            self.say(text)
        if self._space and not self._has_called:
            self.pieces.append(self._space)
        self._space = ""


Reader = Callable[[CallSource], Parse[None]]
"""Reads a whole reply."""


class _Stream:
    """`tool_calling.ToolStream` on a generator."""

    def __init__(self, reader: Reader) -> None:
        self._source = CallSource()
        self._parse = reader(self._source)
        run(self._parse)

    @property
    def num_held(self) -> int:
        """Characters that are not decided yet."""
        return self._source.num_held

    def feed(self, text: str) -> list[ToolPiece]:
        """Take the next text in."""
        self._source.add(text)
        run(self._parse)
        return self._source.drain()

    def flush(self) -> list[ToolPiece]:
        """Return what is left."""
        self._source.end()
        run(self._parse)
        self._source.finish()
        return self._source.drain()


@dataclass(frozen=True, slots=True)
class FamilyParser:
    """`tool_calling.ToolParser` of a family, with one request's tools."""

    syntax: ToolSyntax | None
    reader: Reader

    def start(self) -> ToolStream:
        """A reader of one reply."""
        return _Stream(self.reader)

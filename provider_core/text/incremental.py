"""Parsers as straight-line generators over text that arrives in pieces.

A parser is a generator that reads a `Source`. Where it needs more text it yields, and goes on when
there is some; at the end of the text `EndOfText` is raised inside it. So a parser reads like one
for a whole text, any cut of the text gives the same, and every character is looked at a bounded
number of times.
"""

import re
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")
Parse = Generator[None, None, _T]
"""Reads something and returns it; yields to wait for more text."""

_NOT_SPACE = re.compile(r"\S")


class EndOfText(Exception):
    """No more text will come."""


class Markers:
    """Spellings to look for in a text that is not all there yet.

    Args:
        spellings: Not empty; of two that begin at the same place the longer counts.

    Attributes:
        max_length: Characters of the longest.
    """

    def __init__(self, spellings: Sequence[str]) -> None:
        longest_first = sorted(spellings, key=len, reverse=True)
        self.search = re.compile("|".join(map(re.escape, longest_first))).search
        self._beginnings = frozenset(
            spelling[:length] for spelling in spellings for length in range(1, len(spelling))
        )
        self.max_length = max(map(len, spellings))
        self._first = {spelling[0] for spelling in spellings}

    def num_open(self, text: str, begin: int) -> int:
        """How many characters at the end of `text[begin:]` may become a marker; the most."""
        for start in range(max(begin, len(text) - self.max_length + 1), len(text)):
            if text[start] in self._first and text[start:] in self._beginnings:
                return len(text) - start
        return 0


class Source:
    """The text that a parser was given, and how far it has read."""

    def __init__(self) -> None:
        self._text = ""
        self._position = 0
        self._is_ended = False
        self._attempt: list[str] | None = None  # what was read of it
        self._num_attempted = 0

    @property
    def num_held(self) -> int:
        """Characters that were not read, or only as an attempt."""
        return len(self._text) - self._position + self._num_attempted

    def add(self, text: str) -> None:
        """More text."""
        self._text = self._text[self._position :] + text
        self._position = 0

    def end(self) -> None:
        """No more text."""
        self._is_ended = True

    def more(self) -> Parse[None]:
        """Wait for more text.

        Raises:
            EndOfText: None will come.
        """
        if self._is_ended:
            raise EndOfText
        yield

    def take(self, num_chars: int) -> str:
        """Read what is there, at most so much."""
        begin = self._position
        self._position = min(begin + num_chars, len(self._text))
        taken = self._text[begin : self._position]
        if self._attempt is not None:
            self._attempt.append(taken)
            self._num_attempted += len(taken)
        return taken

    def peek(self) -> Parse[str]:
        """Wait for a character and return it unread."""
        while self._position == len(self._text):
            yield from self.more()
        return self._text[self._position]

    def peek_solid(self) -> Parse[str]:
        """Read white space; return the character behind it unread."""
        while not (found := _NOT_SPACE.search(self._text, self._position)):
            self.take(len(self._text))
            yield from self.more()
        self.take(found.start() - self._position)
        return found[0]

    def starts(self, literal: str) -> Parse[bool]:
        """Say whether a literal comes next; read nothing."""
        while True:
            rest = self._text[self._position : self._position + len(literal)]
            if rest == literal:
                return True
            if not literal.startswith(rest) or self._is_ended:
                return False
            yield from self.more()

    def skip(self, literal: str) -> Parse[bool]:
        """Read a literal if it comes next; say whether it did."""
        if (yield from self.starts(literal)):
            self.take(len(literal))
            return True
        return False

    def until(
        self, markers: Markers, tell: Callable[[str], None], *, limit: int | None = None
    ) -> Parse[str]:
        """Read up to the first marker, and that; return it.

        Args:
            markers: What ends the text.
            tell: Called with the pieces of the text before it, in order.
            limit: Return an empty string, and read no further, once the text is longer.
        """
        num_told = 0
        while True:
            begin, text = self._position, self._text
            # What lies beyond the limit is not looked at: the next reader may begin there again.
            horizon = len(text) if limit is None else begin + limit - num_told + markers.max_length
            found = markers.search(text, begin, horizon)
            end = found.start() if found else len(text) - markers.num_open(text, begin)
            num_told += end - begin
            if limit is not None and num_told > limit:
                return ""
            if end > begin:
                tell(self.take(end - begin))
            if found:
                return self.take(len(found[0]))
            yield from self.more()

    def scan(self, find_end: Callable[[str, int], int], tell: Callable[[str], None]) -> Parse[None]:
        """Read on until an end is found, however far away.

        Args:
            find_end: Given a text and where to begin in it, the end; -1 if it lies beyond.
            tell: Called with the pieces of what is read, in order.
        """
        while (end := find_end(self._text, self._position)) < 0:
            if self._position < len(self._text):
                tell(self.take(len(self._text)))
            yield from self.more()
        if end > self._position:
            tell(self.take(end - self._position))

    def begin_attempt(self, marker: str) -> None:
        """Record what is read: it may turn out to be something else.

        Args:
            marker: What was read just now and belongs to it.
        """
        self._attempt = [marker]
        self._num_attempted = len(marker)

    def end_attempt(self) -> str:
        """Stop recording; return what was recorded, if anything was."""
        text = "".join(self._attempt or ())
        self._attempt = None
        self._num_attempted = 0
        return text

    def rest(self) -> str:
        """Read all that is left."""
        return self.take(len(self._text))


def run(parse: Parse[None]) -> bool:
    """Let a parser read what there is; `False` once it has ended."""
    with suppress(StopIteration, EndOfText):
        next(parse)
        return True
    return False

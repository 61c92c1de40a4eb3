"""How models write calls of tools: the protocol that a family's parser fills.

A `ToolParser` knows one family's syntax in both directions. Reading, it turns a reply, piece by
piece as it is generated, into content and calls. Writing, its `syntax` says how a call is spelled,
so that the arguments can be constrained to the tools' schemas while the model writes them.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call begins: which tool."""

    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The next characters of the call's arguments; joined, they are a JSON object."""

    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The call is whole."""


ToolPiece = str | CallStart | CallArguments | CallEnd
"""What a reply consists of; a plain string is content."""


@dataclass(frozen=True, slots=True)
class ElementSyntax:
    """How an argument is spelled that is an element of its own.

    Attributes:
        before_key: The opening.
        after_key: Between the argument's name and its value.
        after_value: The closing tag, and the space around it.
    """

    before_key: str
    after_key: str
    after_value: str

    @property
    def closing_tag(self) -> str:
        """What ends a value wherever it comes, except within a JSON string."""
        return self.after_value.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSyntax:
    """How a family spells calls, for constrained decoding.

    The calls of a reply are `begin`, one or more calls with `separator` between them, and `end`. A
    call is `before_name`, the name, `after_name`, the arguments, `after_arguments`.

    Attributes:
        trigger: The beginning of `begin + before_name` that, wherever it occurs, can only be a
            call. Empty if nothing is reserved: then a reply that begins exactly like a call of one
            of the tools, up to its arguments, is one.
        answer_opening: What stands before the content of every reply, in families that frame all
            they write; they write one call at most, and end there.
        asides: With that: openings and closings of what may stand before the content or the call.
        elements: How each argument is spelled, if they are no JSON object.
        is_free: Arguments have a form that is not constrained.
        control_tokens: Spellings that the parser wants to read although they may be control tokens,
            which no text shows.
    """

    before_name: str
    after_name: str
    after_arguments: str
    begin: str = ""
    separator: str = ""
    end: str = ""
    trigger: str = ""
    answer_opening: str = ""
    asides: tuple[tuple[str, str], ...] = ()
    elements: ElementSyntax | None = None
    is_free: bool = False
    control_tokens: tuple[str, ...] = ()


class ToolStream(Protocol):
    """Reads one reply. The pieces depend on the text, not on how it was cut."""

    @property
    def num_held(self) -> int:
        """Characters that were fed and are not decided yet: they may be the start of a call."""
        ...

    def feed(self, text: str) -> list[ToolPiece]:
        """Take the next text in and return what it decided. Never raises, whatever the text."""
        ...

    def flush(self) -> list[ToolPiece]:
        """Return what is left; no more text will come.

        What only looked like the start of a call is content. A call that is not whole stays
        without a `CallEnd`.
        """
        ...


class ToolParser(Protocol):
    """One request's way of reading calls, shared by its choices."""

    @property
    def syntax(self) -> ToolSyntax | None:
        """How calls are written; `None` if they cannot be constrained."""
        ...

    def start(self) -> ToolStream:
        """A reader of one reply."""
        ...

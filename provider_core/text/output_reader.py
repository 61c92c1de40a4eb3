"""A reply as reasoning, content and calls: the stages between decoded text and events.

The reasoning is split off first, then the calls. Stop strings are watched for in the content alone:
a client that asks for `stop` means what it will read, and neither the thoughts of the model nor the
JSON of a call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from provider_core.interfaces import Tokenizer
from provider_core.text.reasoning import ReasoningStream, ReasoningSyntax, ReasoningText
from provider_core.text.stop_strings import StopMatcher, StopStrings
from provider_core.tool_calling import CallArguments, CallEnd, CallStart, ToolParser, ToolPiece

OutputPiece = str | ReasoningText | CallStart | CallArguments


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """What one request's replies consist of beside text.

    Attributes:
        reasoning: `None` if the model does not reason.
        opens_reasoning: The prompt has opened the reasoning already.
        shows_reasoning: `False` counts it and tells nobody.
        tool_parser: `None` if nothing may be called: then markup of calls is content.
        allows_parallel_calls: `False` ends a reply behind its first call.
        control_tokens: Ids of control tokens that are part of the markup, and their spellings.
    """

    reasoning: ReasoningSyntax | None = None
    opens_reasoning: bool = False
    shows_reasoning: bool = True
    tool_parser: ToolParser | None = None
    allows_parallel_calls: bool = True
    control_tokens: Mapping[int, str] = field(default_factory=dict)


class OutputReader:
    """Reads one reply.

    Attributes:
        stop_string: What ended it, if that did.
        num_calls: Calls that are whole.
        is_in_call: A call has begun and is not whole.
        is_over: Nothing more may be fed: a stop string came, or the only call is whole.
    """

    def __init__(self, output: OutputFormat, stop_strings: StopStrings) -> None:
        self.stop_string: str | None = None
        self.num_calls = 0
        self.is_in_call = False
        self.is_over = False
        syntax = output.reasoning
        self._reasoning = (
            ReasoningStream(syntax, is_open=output.opens_reasoning) if syntax else None
        )
        self._tools = output.tool_parser.start() if output.tool_parser else None
        self._stop_strings = stop_strings
        self._matcher = StopMatcher(stop_strings) if stop_strings else None
        self._num_withheld = 0  # characters of content that the matcher has kept
        self._allows_parallel_calls = output.allows_parallel_calls

    @property
    def num_held(self) -> int:
        """Characters that were fed and are in no piece yet, nor decided to be markup."""
        held = self._num_withheld
        if self._reasoning:
            held += self._reasoning.num_held
        return held + self._tools.num_held if self._tools else held

    @property
    def is_reasoning(self) -> bool:
        """The next token belongs to the reasoning."""
        return self._reasoning is not None and self._reasoning.is_reasoning

    def feed(self, text: str) -> list[OutputPiece]:
        """Take the next text in and return what it decided."""
        if self._reasoning is None:
            return self._read_answer(text)
        pieces = self._split(self._reasoning.feed(text))
        if self._reasoning.is_done:
            self._reasoning = None
        return pieces

    def flush(self) -> list[OutputPiece]:
        """Return what is left; no more text will come."""
        pieces = self._split(self._reasoning.flush()) if self._reasoning else []
        if self._tools and not self.is_over:
            pieces += self._watch(self._tools.flush())
        if not self.is_over:
            pieces += self._release()
        return pieces

    def _split(self, found: Sequence[str | ReasoningText]) -> list[OutputPiece]:
        pieces: list[OutputPiece] = []
        for piece in found:
            if isinstance(piece, str):
                pieces += self._read_answer(piece)
            else:
                pieces.append(piece)
        return pieces

    def _read_answer(self, text: str) -> list[OutputPiece]:
        return self._watch(self._tools.feed(text) if self._tools else [text])

    def _watch(self, found: Sequence[ToolPiece]) -> list[OutputPiece]:
        """Count calls and look for stop strings; what comes behind the end is dropped."""
        pieces: list[OutputPiece] = []
        for piece in found:
            if self.is_over:
                break
            match piece:
                case str():
                    if text := self._match(piece):
                        pieces.append(text)
                case CallStart():
                    pieces += self._release()
                    pieces.append(piece)
                    self.is_in_call = True
                case CallArguments():
                    pieces.append(piece)
                case CallEnd():
                    self.num_calls += 1
                    self.is_in_call = False
                    self.is_over = not self._allows_parallel_calls
        return pieces

    def _match(self, text: str) -> str:
        if self._matcher is None:
            return text
        shown = self._matcher.feed(text)
        self._num_withheld += len(text) - len(shown)
        if self._matcher.matched:
            self.stop_string = self._matcher.matched
            self.is_over = True
        return shown

    def _release(self) -> list[OutputPiece]:
        """Let go what could have become a stop string: the content ends here."""
        if not self._num_withheld or self._matcher is None:
            return []
        self._num_withheld = 0
        text = self._matcher.flush()
        self._matcher = StopMatcher(self._stop_strings)
        return [text]


def find_control_tokens(tokenizer: Tokenizer, spellings: Sequence[str]) -> dict[int, str]:
    """Return the ids of those spellings that are control tokens, which no decoder shows."""
    found = {}
    for spelling in spellings:
        ids = tokenizer.encode(spelling, allow_special=True)
        if len(ids) == 1 and ids[0] in tokenizer.special_token_ids:
            found[ids[0]] = spelling
    return found

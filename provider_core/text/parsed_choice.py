"""A choice that may hold reasoning and calls of tools beside text."""

import secrets
from collections.abc import Callable, Sequence
from typing import assert_never

from provider_core.interfaces import Tokenizer
from provider_core.text.choice import Choice, ChoiceOwner
from provider_core.text.events import (
    ChoiceFinish,
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from provider_core.text.output_reader import OutputFormat, OutputPiece, OutputReader
from provider_core.text.reasoning import ReasoningText
from provider_core.text.stop_strings import StopStrings
from provider_core.tool_calling import CallArguments, CallStart
from provider_core.types import EngineOutput, GenerationRequest, TokenLogprobs

_ID_BYTES = 12  # of randomness in the id of a call: 24 characters


class ParsedChoice(Choice):
    """One sequence's way from ids to events of every kind.

    A token's text may be markup that nobody sees, or be held back until more of it is known. It is
    delivered with the last event that what it decided leads to.
    """

    __slots__ = (
        "_call_index",
        "_control_tokens",
        "_num_decided",
        "_num_hidden",
        "_num_thought",
        "_reader",
        "_shows",
    )

    def __init__(
        self,
        owner: ChoiceOwner,
        index: int,
        request: GenerationRequest,
        tokenizer: Tokenizer,
        stop_strings: StopStrings,
        on_event: Callable[[Event], bool | None],
        output: OutputFormat,
    ) -> None:
        super().__init__(owner, index, request, tokenizer, stop_strings, on_event)
        self._reader = OutputReader(output, stop_strings)
        self._control_tokens = output.control_tokens
        self._shows = output.shows_reasoning
        self._call_index = -1
        self._num_decided = 0  # characters that are in pieces, or are markup
        self._num_thought = 0  # tokens of the reasoning, delivered or not
        self._num_hidden = 0  # of those that nobody sees, which the next event delivers

    @property
    def num_reasoning(self) -> int:
        """Delivered tokens that were reasoning; they come first."""
        return min(self._num_thought, self.num_delivered)

    def finish(
        self,
        reason: ChoiceFinish,
        native: str,
        error: Exception | None = None,
        stop_string: str | None = None,
    ) -> None:
        """Send the last event."""
        self._num_pending += self._num_hidden
        super().finish(reason, native, error, stop_string)

    def _take(self, output: EngineOutput) -> None:
        if not self._has_started:
            self._start(output)
            self._is_plain = False
            if self.is_finished:
                return
        reader = self._reader
        found: list[tuple[OutputPiece, int]] = []  # and how much of the text it leaves decided
        last = len(output.token_ids) - 1
        for i, token_id in enumerate(output.token_ids):
            is_end = i == last and output.stop_token_id is not None
            self._pending.append((self._num_chars, output.logprobs[i] if output.logprobs else None))
            self._num_thought += reader.is_reasoning
            self._read("" if is_end else self._text_of(token_id), found)
            if reader.is_over:
                break
        is_last = output.finish_reason is not None
        if is_last and not reader.is_over:
            self._read(self._decoder.flush(), found)
            if not reader.is_over:
                self._note(reader.flush(), found)
        self._tell(found, everything=is_last and not reader.is_over)
        if not self.is_finished and (is_last or reader.is_over):
            self._end(output)

    def _text_of(self, token_id: int) -> str:
        """The text of an id; of control tokens only that of markup."""
        spelling = self._control_tokens.get(token_id)
        return self._step(token_id) if spelling is None else self._decoder.flush() + spelling

    def _read(self, text: str, found: list[tuple[OutputPiece, int]]) -> None:
        if text:
            self._num_chars += len(text)
            self._note(self._reader.feed(text), found)

    def _note(self, pieces: Sequence[OutputPiece], found: list[tuple[OutputPiece, int]]) -> None:
        """Append pieces, each joined to the one before if that is of the same kind."""
        num_decided = self._num_decided
        self._num_decided = self._num_chars - self._reader.num_held
        for i, piece in enumerate(pieces, 1):
            if i == len(pieces):
                num_decided = self._num_decided
            match found[-1][0] if found else None, piece:
                case str(before), str():
                    found[-1] = (before + piece, num_decided)
                case ReasoningText(before), ReasoningText(text):
                    found[-1] = (ReasoningText(before + text), num_decided)
                case CallArguments(before), CallArguments(text):
                    found[-1] = (CallArguments(before + text), num_decided)
                case _:
                    found.append((piece, num_decided))

    def _tell(self, found: list[tuple[OutputPiece, int]], *, everything: bool) -> None:
        """Send the events of pieces, with the tokens that led to them."""
        if everything and found:
            found[-1] = (found[-1][0], self._num_chars + 1)
        for piece, num_decided in found:
            entries = self._take_pending(num_decided)
            if isinstance(piece, ReasoningText) and not self._shows:
                self._num_hidden += len(entries)
                continue
            num_tokens, self._num_hidden = len(entries) + self._num_hidden, 0
            self._emit(self._event(piece, _listed(entries)), num_tokens)
            if self.is_finished:  # refused, or closed meanwhile
                return
        if everything and (self._shows or not self._reader.is_reasoning):
            entries = self._take_pending(self._num_chars + 1)
            if logprobs := _listed(entries):
                self._emit(TextDelta(self._index, "", logprobs), len(entries))
            else:
                self._num_pending += len(entries)

    def _take_pending(self, num_decided: int) -> list[tuple[int, TokenLogprobs | None]]:
        """Return the tokens that begin in the decided text, and wait for them no longer."""
        pending = self._pending
        num_tokens = 0
        while num_tokens < len(pending) and pending[num_tokens][0] < num_decided:
            num_tokens += 1
        entries = pending[:num_tokens]
        del pending[:num_tokens]
        return entries

    def _event(self, piece: OutputPiece, logprobs: tuple[TokenLogprobs, ...]) -> Event:
        match piece:
            case str():
                return TextDelta(self._index, piece, logprobs)
            case ReasoningText(text):
                return ReasoningDelta(self._index, text, logprobs)
            case CallStart(name):
                self._call_index += 1
                call_id = f"call_{secrets.token_hex(_ID_BYTES)}"
                return ToolCallStart(self._index, self._call_index, call_id, name, logprobs)
            case CallArguments(text):
                return ToolCallDelta(self._index, self._call_index, text, logprobs)
            case _:
                assert_never(piece)

    def _end(self, output: EngineOutput) -> None:
        reader = self._reader
        has_called = reader.num_calls > 0 and not reader.is_in_call
        if reader.is_over:
            if output.finish_reason is None:
                self._owner.abort(self)
            native = "tool_calls" if reader.stop_string is None else "stop_string"
            reason: ChoiceFinish = "tool_calls" if has_called else "stop"
            self.finish(reason, native, stop_string=reader.stop_string)
        elif output.finish_reason is not None:
            is_call = has_called and output.finish_reason == "stop"
            reason = "tool_calls" if is_call else output.finish_reason
            self.finish(reason, self._native_reason(output), output.error)


def _listed(entries: Sequence[tuple[int, TokenLogprobs | None]]) -> tuple[TokenLogprobs, ...]:
    return tuple(logprobs for _, logprobs in entries if logprobs is not None)

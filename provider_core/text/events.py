"""What a generation tells: a closed union of events, and the whole reply as a fold over them.

Match on `Event` and end in `assert_never`. The values hold text that a model made: never log them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, assert_never

from provider_core.types import TokenLogprobs

ChoiceFinish = Literal["stop", "length", "tool_calls", "error", "abort"]


@dataclass(slots=True)
class TextDelta:
    """New text of one choice.

    Attributes:
        logprobs: Of the tokens whose first character this shows, in order; those of hidden control
            ids (their bytes are empty) ride along. Empty if none were asked for.
    """

    index: int
    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(slots=True)
class ReasoningDelta:
    """New text that the model thought and does not say; before any `TextDelta` it belongs to.

    Attributes:
        logprobs: As in `TextDelta`.
    """

    index: int
    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(slots=True)
class ToolCallStart:
    """A call of a tool begins; its arguments follow as `ToolCallDelta`.

    Attributes:
        call_index: Counts the choice's calls from 0.
        call_id: Unique in the process, at most 64 characters.
        logprobs: Of the tokens that spelled what led here, as in `TextDelta`.
    """

    index: int
    call_index: int
    call_id: str
    name: str
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(slots=True)
class ToolCallDelta:
    """The next characters of the last call's arguments; together they are a JSON object."""

    index: int
    call_index: int
    arguments: str
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(slots=True)
class PromptEcho:
    """Log probabilities of the prompt's ids; the first event of its choice, if asked for."""

    index: int
    logprobs: tuple[TokenLogprobs, ...]


@dataclass(slots=True)
class Finished:
    """The last event of a choice; every choice has exactly one.

    Attributes:
        finish_reason: `tool_calls` if the choice ended by itself and made a call that is whole.
            `abort` is for the server only and never reaches a client.
        native_finish_reason: `eos`, `stop_token`, `stop_string`, or the finish reason.
        stop_string: The stop string that ended it.
        error: Why, if the engine gave a reason.
    """

    index: int
    finish_reason: ChoiceFinish
    native_finish_reason: str
    error: Exception | None = None
    stop_string: str | None = None


Event = TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | PromptEcho | Finished


@dataclass(slots=True)
class ToolCall:
    """One call of a tool; `arguments` is a JSON object as text."""

    call_id: str
    name: str
    arguments: str = ""


@dataclass(slots=True)
class ChoiceResult:
    """One choice as a whole reply has it.

    Attributes:
        finish_reason: `None` while the choice runs.
    """

    index: int
    text: str = ""
    finish_reason: ChoiceFinish | None = None
    native_finish_reason: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    error: Exception | None = None
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    stop_string: str | None = None

    @property
    def mean_logprob(self) -> float:
        """Mean over the choice's tokens; minus infinity without any."""
        known = [entry.logprob for entry in self.logprobs if entry.logprob is not None]
        return sum(known) / len(known) if known else float("-inf")


class Fold:
    """Collects events into whole choices; an instance is an `on_event`."""

    def __init__(self) -> None:
        self._results: dict[int, ChoiceResult] = {}
        self._pieces: dict[int, list[str]] = {}
        self._reasoning: dict[int, list[str]] = {}

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        result = self._results.setdefault(event.index, ChoiceResult(event.index))
        match event:
            case TextDelta():
                self._pieces.setdefault(event.index, []).append(event.text)
                result.logprobs += event.logprobs
            case ReasoningDelta():
                self._reasoning.setdefault(event.index, []).append(event.text)
                result.logprobs += event.logprobs
            case ToolCallStart():
                result.tool_calls.append(ToolCall(event.call_id, event.name))
                result.logprobs += event.logprobs
            case ToolCallDelta():
                result.tool_calls[event.call_index].arguments += event.arguments
                result.logprobs += event.logprobs
            case PromptEcho():
                result.prompt_logprobs = event.logprobs
            case Finished():
                result.finish_reason = event.finish_reason
                result.native_finish_reason = event.native_finish_reason
                result.stop_string = event.stop_string
                result.error = event.error
            case _:
                assert_never(event)

    def results(self) -> list[ChoiceResult]:
        """All choices seen, by index."""
        for index, pieces in self._pieces.items():
            self._results[index].text = "".join(pieces)
        for index, pieces in self._reasoning.items():
            self._results[index].reasoning = "".join(pieces)
        return [self._results[index] for index in sorted(self._results)]


def fold(events: Iterable[Event]) -> list[ChoiceResult]:
    """Return the whole choices of a sequence of events, by index."""
    folded = Fold()
    for event in events:
        folded(event)
    return folded.results()


def pick_best(results: Sequence[ChoiceResult], *, best_of: int, n: int) -> list[ChoiceResult]:
    """Keep the `n` likeliest of every `best_of` consecutive choices, best first.

    OpenAI defines best_of by the highest log probability per token; the requests must have asked
    for log probabilities. A choice that failed comes after all that did not.

    Returns:
        The kept ones, numbered anew from 0, prompt by prompt.
    """
    kept: list[ChoiceResult] = []
    for begin in range(0, len(results), best_of):
        group = sorted(
            results[begin : begin + best_of],
            key=lambda result: (
                result.finish_reason not in {"stop", "length", "tool_calls"},
                -result.mean_logprob,
            ),
        )
        kept += group[:n]
    for index, result in enumerate(kept):
        result.index = index
    return kept

"""One choice of a response: from an engine's ids to events, counting what was delivered."""

from collections.abc import Callable
from typing import Protocol

from provider_core.interfaces import Tokenizer
from provider_core.text.events import ChoiceFinish, Event, Finished, PromptEcho, TextDelta
from provider_core.text.stop_strings import StopMatcher, StopStrings
from provider_core.types import EngineOutput, GenerationRequest, TokenLogprobs

_ENDED = frozenset({"stop", "length", "tool_calls"})  # by itself: what it hid counts


class ChoiceOwner(Protocol):
    """The response that a choice belongs to, as the choice sees it."""

    def hold(self, choice: "Choice", output: EngineOutput) -> bool:
        """Keep an output for later; `False` if the choice may take it now."""
        ...

    def abort(self, choice: "Choice") -> None:
        """End the choice's sequence in the engine."""
        ...

    def note_started(self, started_s: float) -> None:
        """Take the time at which work on the response began."""
        ...

    def note_first_token(self) -> None:
        """Take the time of the response's first token."""
        ...

    def note_made(self) -> None:
        """Count one choice of which the engine has given the last output."""
        ...

    def note_finished(self) -> None:
        """Count one choice as finished."""
        ...

    def refuse(self) -> None:
        """End everything because an event could not be delivered."""
        ...

    def fail(self, error: BaseException) -> None:
        """End everything because `on_event` raised."""
        ...


class Choice:
    """One sequence's way from ids to events, if all it makes is text.

    Args:
        owner: The response that it belongs to.
        index: Its place there.
        request: Its sequence.
        tokenizer: Of the model.
        stop_strings: What ends it.
        on_event: See `Generation`.

    Attributes:
        num_cached: Prompt tokens that came from a cache.
        num_delivered: Tokens that were delivered, in the sense of `generation`.
        num_generated: Tokens that the engine made.
    """

    __slots__ = (
        "_decoder",
        "_has_started",
        "_index",
        "_is_plain",
        "_matcher",
        "_num_chars",
        "_num_pending",
        "_num_shown",
        "_on_event",
        "_owner",
        "_pending",
        "_step",
        "is_finished",
        "num_cached",
        "num_delivered",
        "num_generated",
        "request",
    )

    def __init__(
        self,
        owner: ChoiceOwner,
        index: int,
        request: GenerationRequest,
        tokenizer: Tokenizer,
        stop_strings: StopStrings,
        on_event: Callable[[Event], bool | None],
    ) -> None:
        self.request = request
        self.is_finished = False
        self.num_cached = 0
        self.num_delivered = 0
        self.num_generated = 0
        self._owner = owner
        self._index = index
        self._on_event = on_event
        self._decoder = tokenizer.make_decoder(request.prompt_token_ids)
        self._step = self._decoder.step
        self._matcher = StopMatcher(stop_strings) if stop_strings else None
        self._has_started = False
        self._is_plain = False  # started, and neither stop strings nor log probabilities
        self._num_pending = 0  # plain: tokens that showed no text yet
        self._pending: list[tuple[int, TokenLogprobs | None]] = []  # else: where each one's begins
        self._num_chars = 0  # decoded
        self._num_shown = 0  # of them handed out

    @property
    def num_reasoning(self) -> int:
        """Delivered tokens that were reasoning."""
        return 0

    def on_output(self, output: EngineOutput) -> None:
        """Count what one step made and take it, now or once nobody pauses."""
        if output.started_s is not None:
            self._owner.note_started(output.started_s)
            if not output.token_ids and output.finish_reason is None:
                return
        self.num_generated += len(output.token_ids)
        self.num_cached += output.num_cached_tokens
        if output.finish_reason is not None:
            self._owner.note_made()
        if not self._owner.hold(self, output):
            self.take(output)

    def take(self, output: EngineOutput) -> None:
        """Turn an output into events. The short way is the cost of a token: keep it short."""
        if self.is_finished:
            return
        token_ids = output.token_ids
        try:
            if not self._is_plain or output.finish_reason is not None:
                self._take(output)
                return
            if len(token_ids) == 1:
                text = self._step(token_ids[0])
            else:
                text = "".join(map(self._step, token_ids))
            self._num_pending += len(token_ids)
            if text:
                num_tokens, self._num_pending = self._num_pending, 0
                self._emit(TextDelta(self._index, text), num_tokens)
        except BaseException as error:  # noqa: BLE001 - it is raised again by `wait`
            self._owner.fail(error)

    def finish(
        self,
        reason: ChoiceFinish,
        native: str,
        error: Exception | None = None,
        stop_string: str | None = None,
    ) -> None:
        """Send the last event; what was never shown counts only if the choice ended by itself."""
        self.is_finished = True
        num_tokens = self._num_pending + len(self._pending) if reason in _ENDED else 0
        self._num_pending = 0
        self._pending.clear()
        try:
            self._emit(Finished(self._index, reason, native, error, stop_string), num_tokens)
        except BaseException as failure:  # noqa: BLE001 - it is raised again by `wait`
            self._owner.fail(failure)
        finally:
            self._owner.note_finished()

    def _emit(self, event: Event, num_tokens: int) -> None:
        if self._on_event(event) is False:
            self._owner.refuse()
        else:
            self.num_delivered += num_tokens

    def _take(self, output: EngineOutput) -> None:
        """The general way: first and last outputs, stop strings, log probabilities."""
        if not self._has_started:
            self._start(output)
            if self.is_finished:  # the echo could not be delivered
                return
        text = self._decode(output)
        matcher = self._matcher
        if output.finish_reason is not None and not (matcher and matcher.matched):
            tail = self._decoder.flush()
            self._num_chars += len(tail)
            if matcher:
                tail = matcher.feed(tail)
                tail += "" if matcher.matched else matcher.flush()
            text += tail
        stop_string = matcher.matched if matcher else None
        self._show(text, everything=output.finish_reason is not None and stop_string is None)
        if self.is_finished:  # closed meanwhile
            return
        if stop_string is not None:
            if output.finish_reason is None:
                self._owner.abort(self)
            self.finish("stop", "stop_string", stop_string=stop_string)
        elif output.finish_reason is not None:
            self.finish(output.finish_reason, self._native_reason(output), output.error)
        elif self._is_plain:  # the short way only counts
            self._num_pending = len(self._pending)
            self._pending.clear()

    def _start(self, output: EngineOutput) -> None:
        if output.token_ids:
            self._has_started = True
            self._is_plain = self._matcher is None and self.request.sampling.logprobs is None
            self._owner.note_first_token()
        if output.prompt_logprobs:
            self._emit(PromptEcho(self._index, output.prompt_logprobs), 0)

    def _decode(self, output: EngineOutput) -> str:
        """Decode until a stop string is complete; note where each token's text begins."""
        matcher = self._matcher
        pieces = []
        last = len(output.token_ids) - 1
        for i, token_id in enumerate(output.token_ids):
            is_hidden = i == last and output.stop_token_id is not None
            logprobs = output.logprobs[i] if output.logprobs else None
            self._pending.append((self._num_chars, logprobs))
            text = "" if is_hidden else self._step(token_id)
            self._num_chars += len(text)
            pieces.append(matcher.feed(text) if matcher else text)
            if matcher and matcher.matched:
                break  # what a speculating engine made beyond it is not of this choice
        return "".join(pieces)

    def _show(self, text: str, *, everything: bool) -> None:
        """Send text with the tokens that begin in it, or with all that are pending."""
        self._num_shown += len(text)
        pending = self._pending
        num_tokens = len(pending)
        if not everything:
            num_tokens = sum(begin < self._num_shown for begin, _ in pending)
        logprobs = tuple(entry for _, entry in pending[:num_tokens] if entry is not None)
        if text or logprobs:
            num_plain, self._num_pending = self._num_pending, 0
            del pending[:num_tokens]
            self._emit(TextDelta(self._index, text, logprobs), num_tokens + num_plain)

    def _native_reason(self, output: EngineOutput) -> str:
        if output.finish_reason != "stop" or output.stop_token_id is None:
            return str(output.finish_reason)
        is_eos = output.stop_token_id in self.request.eos_token_ids
        return "eos" if is_eos else "stop_token"

"""Where engine and text meet: one response's sequences in, typed events out.

A `Generation` runs all choices of one HTTP response. It decodes ids, watches stop strings and
counts; it knows neither HTTP nor money. Events are pushed: `on_event` is called on the event loop's
thread from the engine's own callback, so that a token costs no task switch. A whole reply is a
`Fold` over the same events.

Usage is an attribute, valid at any time. A token is **delivered** when `on_event` has returned from
the event that showed the first of its characters; the id that ends a choice (eos, a stop token) and
the ids of a stop string show none and are delivered with `Finished`, as OpenAI counts them.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from provider_core.interfaces import Engine, Tokenizer
from provider_core.text.events import (
    ChoiceResult,
    Event,
    Finished,
    Fold,
    PromptEcho,
    TextDelta,
    fold,
    pick_best,
)
from provider_core.text.stop_strings import StopMatcher, StopStrings
from provider_core.types import EngineOutput, GenerationRequest, TokenLogprobs, Usage

__all__ = [
    "ChoiceResult",
    "Event",
    "Finished",
    "Fold",
    "Generation",
    "PromptEcho",
    "TextDelta",
    "fold",
    "pick_best",
]


class Generation:
    """Runs the choices of one response: k prompts times n choices, prompt by prompt.

    Args:
        engine: Runs the sequences.
        tokenizer: Of the model that made the prompts' ids.
        requests: One per choice; a choice's index is its place here.
        stop: Strings that end a choice; never shown.
        num_choices: Choices of each prompt (n, or best_of), so that a prompt is counted once.
        on_event: Called for every event, on the loop's thread; must not block. `False` says that
            the event could not be delivered: its tokens are not counted and everything stops.
            Raising does the same, and `wait` raises it.
        monotonic: The clock, in seconds.

    Attributes:
        first_token_s: When the engine's first token arrived, on the clock; `None` before.
        started_s: When the engine began to work on the first choice, if it says.
        is_refused: An event could not be delivered, and that ended it.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        requests: Sequence[GenerationRequest],
        *,
        stop: Sequence[str] = (),
        num_choices: int = 1,
        on_event: Callable[[Event], bool | None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.first_token_s: float | None = None
        self.started_s: float | None = None
        self.is_refused = False
        self.num_made = 0  # choices whose last output the engine has given
        self._engine = engine
        self._num_choices = num_choices
        self._monotonic = monotonic
        self._is_closed = False
        self._is_paused = False
        self._held: deque[tuple[_Choice, EngineOutput]] = deque()  # while paused
        self._failure: BaseException | None = None
        self._all_finished = asyncio.Event()
        stop_strings = StopStrings(stop)
        self._choices = [
            _Choice(self, index, request, tokenizer, stop_strings, on_event)
            for index, request in enumerate(requests)
        ]
        self._num_unfinished = len(self._choices)

    def start(self) -> None:
        """Submit all sequences.

        Raises:
            EngineDead: The engine takes none; everything has ended with `abort`.
        """
        try:
            for choice in self._choices:
                self._engine.submit(choice.request, choice.on_output)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Abort whatever has not finished: the one way to stop. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._held.clear()
        for choice in self._choices:
            if not choice.is_finished:
                self.abort(choice)
                choice.finish("abort", "abort")

    @property
    def stage(self) -> Literal["queue", "prefill", "decode", "delivery"]:
        """How far it has come: waiting, computing the prompt, making tokens, or only sending."""
        if self.started_s is None and self.first_token_s is None:
            return "queue"
        if self.num_made == len(self._choices):
            return "delivery"
        return "prefill" if self.first_token_s is None else "decode"

    def pause(self) -> None:
        """Hold what the engine makes, as ids, until `resume`: nobody can take events now."""
        self._is_paused = True

    def resume(self) -> None:
        """Send what was held, as far as nobody pauses again, and go on."""
        self._is_paused = False
        held = self._held
        while held and not self._is_paused:
            choice, output = held.popleft()
            choice.take(output)

    def hold(self, choice: "_Choice", output: EngineOutput) -> bool:
        """Keep an output if paused, or if others are held before it."""
        if not (self._is_paused or self._held):
            return False
        self._held.append((choice, output))
        return True

    async def wait(self) -> None:
        """Wait until every choice has finished.

        Raises:
            BaseException: What `on_event` raised.
        """
        await self._all_finished.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def usage(self) -> Usage:
        """What it has cost so far, or in all."""
        per_prompt = self._choices[:: self._num_choices]
        return Usage(
            prompt_tokens=sum(len(choice.request.prompt_token_ids) for choice in per_prompt),
            cached_tokens=sum(choice.num_cached for choice in per_prompt),
            completion_tokens=sum(choice.num_delivered for choice in self._choices),
            generated_tokens=sum(choice.num_generated for choice in self._choices),
        )

    def abort(self, choice: "_Choice") -> None:
        """End a choice's sequence in the engine."""
        self._engine.abort(choice.request.request_id)

    def note_started(self, started_s: float) -> None:
        """Take the time at which work on the response began."""
        if self.started_s is None:
            self.started_s = started_s

    def note_first_token(self) -> None:
        """Take the time of the response's first token."""
        if self.first_token_s is None:
            self.first_token_s = self._monotonic()

    def note_finished(self) -> None:
        """Count one choice as finished."""
        self._num_unfinished -= 1
        if not self._num_unfinished:
            self._all_finished.set()

    def refuse(self) -> None:
        """End everything because an event could not be delivered."""
        self.is_refused = True
        self.close()

    def fail(self, error: BaseException) -> None:
        """End everything because `on_event` raised."""
        if self._failure is None:
            self._failure = error
        self.close()


class _Choice:
    """One sequence's way from ids to events."""

    __slots__ = (
        "_decoder",
        "_generation",
        "_has_started",
        "_index",
        "_is_plain",
        "_matcher",
        "_num_chars",
        "_num_pending",
        "_num_shown",
        "_on_event",
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
        generation: Generation,
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
        self._generation = generation
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

    def on_output(self, output: EngineOutput) -> None:
        """Count what one step made and take it, now or once nobody pauses."""
        if output.started_s is not None:
            self._generation.note_started(output.started_s)
            if not output.token_ids and output.finish_reason is None:
                return
        self.num_generated += len(output.token_ids)
        self.num_cached += output.num_cached_tokens
        if output.finish_reason is not None:
            self._generation.num_made += 1
        if not self._generation.hold(self, output):
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
            self._generation.fail(error)

    def finish(
        self,
        reason: Literal["stop", "length", "error", "abort"],
        native: str,
        error: Exception | None = None,
    ) -> None:
        """Send the last event; what was never shown counts only if the choice ended by itself."""
        self.is_finished = True
        num_tokens = self._num_pending + len(self._pending) if reason in {"stop", "length"} else 0
        self._num_pending = 0
        self._pending.clear()
        try:
            self._emit(Finished(self._index, reason, native, error), num_tokens)
        except BaseException as failure:  # noqa: BLE001 - it is raised again by `wait`
            self._generation.fail(failure)
        finally:
            self._generation.note_finished()

    def _emit(self, event: Event, num_tokens: int) -> None:
        if self._on_event(event) is False:
            self._generation.refuse()
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
        is_cut = matcher is not None and matcher.matched is not None
        self._show(text, everything=output.finish_reason is not None and not is_cut)
        if self.is_finished:  # closed meanwhile
            return
        if is_cut:
            if output.finish_reason is None:
                self._generation.abort(self)
            self.finish("stop", "stop_string")
        elif output.finish_reason is not None:
            self.finish(output.finish_reason, self._native_reason(output), output.error)
        elif self._is_plain:  # the short way only counts
            self._num_pending = len(self._pending)
            self._pending.clear()

    def _start(self, output: EngineOutput) -> None:
        if output.token_ids:
            self._has_started = True
            self._is_plain = self._matcher is None and self.request.sampling.logprobs is None
            self._generation.note_first_token()
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

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
from dataclasses import replace
from typing import Literal

from provider_core.interfaces import Engine, Tokenizer
from provider_core.text.choice import Choice
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
from provider_core.text.output_reader import OutputFormat
from provider_core.text.parsed_choice import ParsedChoice
from provider_core.text.stop_strings import StopStrings
from provider_core.types import EngineOutput, GenerationRequest, Usage

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
        output: What a choice consists of, if it may be more than text.
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
        output: OutputFormat | None = None,
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
        self._held: deque[tuple[Choice, EngineOutput]] = deque()  # while paused
        self._failure: BaseException | None = None
        self._all_finished = asyncio.Event()
        stop_strings = StopStrings(stop)
        self._choices = [
            Choice(self, index, request, tokenizer, stop_strings, on_event)
            if output is None
            else ParsedChoice(self, index, request, tokenizer, stop_strings, on_event, output)
            for index, request in enumerate(requests)
        ]
        self._num_unfinished = len(self._choices)

    def start(self, prompt_embeddings: tuple[tuple[int, memoryview], ...] = ()) -> None:
        """Submit all sequences, unless it is closed.

        Args:
            prompt_embeddings: What the prompt shows, if the requests do not say; see
                `GenerationRequest`.

        Raises:
            EngineDead: The engine takes none; everything has ended with `abort`.
        """
        try:
            for choice in self._choices if not self._is_closed else ():
                request = choice.request
                if prompt_embeddings:
                    request = replace(request, prompt_embeddings=prompt_embeddings)
                self._engine.submit(request, choice.on_output)
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

    def hold(self, choice: Choice, output: EngineOutput) -> bool:
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
            reasoning_tokens=sum(choice.num_reasoning for choice in self._choices),
            generated_tokens=sum(choice.num_generated for choice in self._choices),
        )

    def abort(self, choice: Choice) -> None:
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

    def note_made(self) -> None:
        """Count one choice of which the engine has given the last output."""
        self.num_made += 1

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

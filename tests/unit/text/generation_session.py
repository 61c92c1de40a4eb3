"""A started generation on a scripted engine, its events recorded."""

from collections.abc import Callable, Iterable, Sequence

from provider_core.interfaces import Engine
from provider_core.text.generation import Event, Finished, Generation, fold
from provider_core.text.output_reader import OutputFormat
from provider_core.types import EngineOutput, GenerationRequest, SamplingParams, TokenLogprobs
from tests.unit.text.scripted_engine import ScriptedEngine
from tests.unit.text.tokenizer_folders import byte_level, served

TOKENIZER = served(byte_level())
EOS = 0
PROMPT = (5, 6, 7)


def ids_of(text: str) -> list[int]:
    """The ids of a text."""
    return TOKENIZER.encode(text, allow_special=False)


def request(index: int, *, logprobs: int | None = None) -> GenerationRequest:
    """One choice's request, named after its index."""
    sampling = SamplingParams(max_tokens=100, logprobs=logprobs, stop_token_ids=frozenset({9}))
    return GenerationRequest(
        request_id=str(index),
        prompt_token_ids=PROMPT,
        sampling=sampling,
        eos_token_ids=frozenset({EOS}),
    )


class Session:
    """A started generation on a scripted engine, its events recorded."""

    def __init__(
        self,
        num_requests: int = 1,
        *,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        num_choices: int = 1,
        output: OutputFormat | None = None,
        answer: Callable[[Event], bool | None] = lambda _: None,
        engine: ScriptedEngine | None = None,
        now: Iterable[float] = (1.5, 2.5),
    ) -> None:
        self.engine = engine or ScriptedEngine()
        checked: Engine = self.engine
        self.events: list[Event] = []
        self._answer = answer
        self.generation = Generation(
            checked,
            TOKENIZER,
            [request(index, logprobs=logprobs) for index in range(num_requests)],
            stop=stop,
            num_choices=num_choices,
            output=output,
            on_event=self._on_event,
            monotonic=iter(now).__next__,
        )

    def _on_event(self, event: Event) -> bool | None:
        self.events.append(event)
        return self._answer(event)

    def start(self) -> "Session":
        """Start it."""
        self.generation.start()
        return self

    def push(self, ids: Sequence[int], index: int = 0, **fields: object) -> None:
        """One output of the engine."""
        self.engine.push(str(index), EngineOutput(tuple(ids), **fields))  # type: ignore[arg-type]

    def push_each(self, ids: Sequence[int]) -> None:
        """One output per id."""
        for token_id in ids:
            self.push([token_id])

    def end(self, reason: str = "length", index: int = 0) -> None:
        """An output without ids that ends a choice."""
        self.push([], index, finish_reason=reason)

    @property
    def text(self) -> str:
        """All text of choice 0."""
        return fold(self.events)[0].text

    @property
    def finished(self) -> list[Finished]:
        """The last events."""
        return [event for event in self.events if isinstance(event, Finished)]


def logprobs_of(ids: Sequence[int]) -> tuple[TokenLogprobs, ...]:
    """Entries one can tell apart."""
    return tuple(TokenLogprobs(token_id, -float(i)) for i, token_id in enumerate(ids))

"""Generation: ids of many sequences in, events of one response out, counts right at any time."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.errors import EngineDead, StepFailed
from provider_core.interfaces import Engine
from provider_core.text.generation import (
    Event,
    Finished,
    Fold,
    Generation,
    PromptEcho,
    TextDelta,
    fold,
)
from provider_core.types import (
    EngineOutput,
    GenerationRequest,
    SamplingParams,
    TokenLogprobs,
    Usage,
)
from tests.unit.text.scripted_engine import ScriptedEngine
from tests.unit.text.tokenizer_folders import byte_fallback, byte_level, served

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


@given(
    ids=st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=40),
    sizes=st.lists(st.integers(1, 4), min_size=40, max_size=40),
    has_stop=st.booleans(),
)
def test_streamed_text_equals_whole_decoding(
    ids: list[int],
    sizes: list[int],
    has_stop: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    """However many ids an output holds, and on the short way as on the long one."""
    session = Session(stop=["no such text"] if has_stop else []).start()
    rest = ids
    for size in sizes:
        piece, rest = rest[:size], rest[size:]
        if piece:
            session.push(piece)
    session.end()
    assert session.text == TOKENIZER.decode(ids)
    assert session.generation.usage.completion_tokens == len(ids)


@pytest.mark.parametrize("text", ["👩‍👩‍👧‍👦 family", "你好 世界", "e\u0301 cafe\u0301", "🇨🇭❤️"])
def test_bug_08_characters_over_several_tokens_are_whole(text: str) -> None:
    """Every delta is valid text, and none is empty."""
    session = Session().start()
    session.push_each(ids_of(text))
    session.end()
    deltas = [event.text for event in session.events if isinstance(event, TextDelta)]
    assert "".join(deltas) == text
    assert "" not in deltas
    assert "\ufffd" not in "".join(deltas)


@pytest.mark.parametrize("stop", [[], ["zz"], ["a\ufffdb"]])
@pytest.mark.parametrize("reason", ["length", "stop"])
def test_t10_a_text_that_ends_inside_a_character_ends_in_one_replacement(
    reason: str, stop: list[str]
) -> None:
    """The incomplete bytes are not lost silently, and their token counts."""
    first_byte = next(i for i in range(256) if TOKENIZER.token_bytes(i) == b"\xc3")
    session = Session(stop=stop).start()
    session.push_each([*ids_of("a"), first_byte])
    session.end(reason)
    assert session.text == "a\ufffd"
    assert session.generation.usage.completion_tokens == 2


STOPS = [["\n\nUser:"], ["dog", "do"], ["zy d", "lazy dog says"], ["f"], ["the"]]


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 40])
def test_bug_06_text_ends_before_the_first_stop_string(stop: list[str], size: int) -> None:
    """Whatever the tokens are; and the engine is told."""
    text = "the quick brown fox jumps over the lazy dog says\n\nUser: hello"
    ids = ids_of(text)
    session = Session(stop=stop).start()
    for begin in range(0, len(ids), size):
        session.push(ids[begin : begin + size])
    session.end("abort")
    places = sorted((text.find(s) + len(s), text.find(s)) for s in stop)
    assert session.text == text[: places[0][1]]
    assert session.finished == [Finished(0, "stop", "stop_string")]
    assert session.engine.aborted == ["0"]


def test_bug_06_the_tokens_of_a_stop_string_count() -> None:
    """They were generated and end the choice as eos does; later ones do not count."""
    ids = ids_of("hello STOP")
    session = Session(stop=["STOP"]).start()
    session.push_each(ids)
    session.push(ids_of("hello"))
    assert session.generation.usage.completion_tokens == len(ids)
    assert session.generation.usage.generated_tokens == len(ids) + len(ids_of("hello"))


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_bug_07_a_held_tail_is_delivered_at_the_end(reason: str) -> None:
    """A proper beginning of a stop string is text like any other."""
    session = Session(stop=["STOP"]).start()
    session.push_each(ids_of("the STO"))
    assert session.text == "the "
    session.end(reason)
    assert session.text == "the STO"


def test_a_stop_string_in_the_last_output_is_a_stop() -> None:
    """Although the engine says length."""
    session = Session(stop=["dog"]).start()
    session.push(ids_of("lazy dog"), finish_reason="length")
    assert session.text == "lazy "
    assert session.finished == [Finished(0, "stop", "stop_string")]
    assert session.engine.aborted == []


@pytest.mark.parametrize(
    ("token_id", "native"), [(EOS, "eos"), (9, "stop_token")], ids=["eos", "stop token"]
)
def test_bug_23_the_token_that_ends_a_choice_is_counted_and_not_shown(
    token_id: int, native: str
) -> None:
    """As OpenAI counts; its text, if it has any, is no part of the answer."""
    session = Session().start()
    ids = ids_of("hello")
    session.push_each(ids)
    session.push([token_id], finish_reason="stop", stop_token_id=token_id)
    assert session.text == "hello"
    assert session.finished == [Finished(0, "stop", native)]
    assert session.generation.usage.completion_tokens == len(ids) + 1


def test_bug_23_special_tokens_in_the_middle_are_not_shown_and_count() -> None:
    """With the next text that is."""
    session = Session().start()
    session.push(ids_of("a"))
    session.push([2])
    before = session.generation.usage
    session.push(ids_of("b"))
    session.end()
    assert session.text == "ab"
    assert before.completion_tokens == 1
    assert session.generation.usage.completion_tokens == 3


@pytest.mark.parametrize("stop", [[], ["no such"]])
def test_bug_09_log_probabilities_ride_with_their_text_and_none_is_lost(stop: list[str]) -> None:
    """Per delta and in all: as many as completion tokens, and their bytes join to the text."""
    ids = [*ids_of("hi 👩‍👩‍👧‍👦 no"), EOS]
    entries = logprobs_of(ids)
    session = Session(stop=stop, logprobs=0).start()
    for token_id, entry in zip(ids[:-1], entries, strict=False):
        session.push([token_id], logprobs=(entry,))
    session.push([EOS], logprobs=entries[-1:], finish_reason="stop", stop_token_id=EOS)
    (result,) = fold(session.events)
    assert tuple(result.logprobs) == entries
    assert len(entries) == session.generation.usage.completion_tokens
    joined = b"".join(TOKENIZER.token_bytes(entry.token_id) for entry in result.logprobs)
    assert joined == result.text.encode()


def test_bug_09_what_a_stop_string_cuts_off_has_no_log_probabilities() -> None:
    """They would tell what is withheld."""
    shown, hidden = ids_of("hello"), ids_of("\n\nUser:")
    entries = logprobs_of(shown + hidden)
    session = Session(stop=["\n\nUser:"], logprobs=0).start()
    for token_id, entry in zip(shown + hidden, entries, strict=True):
        session.push([token_id], logprobs=(entry,))
    (result,) = fold(session.events)
    assert tuple(result.logprobs) == entries[: len(shown)]


def test_the_prompts_log_probabilities_come_first() -> None:
    """Once, before any text."""
    entries = logprobs_of(PROMPT)
    session = Session().start()
    session.push(ids_of("a"), prompt_logprobs=entries)
    session.end()
    assert session.events[0] == PromptEcho(0, entries)
    assert fold(session.events)[0].prompt_logprobs == entries


@pytest.mark.parametrize("stop", [[], ["zz"]])
def test_usage_counts_what_was_delivered(stop: list[str]) -> None:
    """A token counts when its event has been taken, and not before."""
    seen: list[Usage] = []
    session = Session(stop=stop, answer=lambda _: seen.append(session.generation.usage))
    session.start()
    for token_id in ids_of("abc"):
        session.push([token_id])
    assert [usage.completion_tokens for usage in seen] == [0, 1, 2]
    assert session.generation.usage.completion_tokens == 3


@pytest.mark.parametrize("stop", [[], ["zz"]])
def test_an_event_that_could_not_be_delivered_stops_everything(stop: list[str]) -> None:
    """Its tokens are not billed, and every sequence is aborted."""
    session = Session(
        2, stop=stop, answer=lambda event: session.generation.usage.completion_tokens < 2
    )
    session.start()
    session.push_each(ids_of("abcd"))
    assert session.generation.usage.completion_tokens == 2
    assert session.generation.usage.generated_tokens == len(ids_of("abcd")) > 3
    assert session.engine.aborted == ["0", "1"]
    assert [event.finish_reason for event in session.finished] == ["abort", "abort"]


async def test_what_on_event_raises_ends_everything_and_is_raised_by_wait() -> None:
    """The engine's callback goes on for the other requests."""

    def refuse(event: Event) -> None:
        if isinstance(event, TextDelta):
            raise ZeroDivisionError

    session = Session(2, answer=refuse).start()
    session.push(ids_of("a"))
    with pytest.raises(ZeroDivisionError):
        await session.generation.wait()
    assert session.engine.aborted == ["0", "1"]
    assert len(session.finished) == 2
    assert session.generation.usage.completion_tokens == 0


async def test_wait_ends_though_the_last_event_raises() -> None:
    """A handler never hangs."""

    def refuse(_: Event) -> None:
        raise ZeroDivisionError

    session = Session(2, answer=refuse).start()
    session.end()
    with pytest.raises(ZeroDivisionError):
        await session.generation.wait()
    assert len(session.finished) == 2


def test_prompts_count_once_each_and_not_once_per_choice() -> None:
    """Two prompts of three choices: two prompts' tokens, and cached ones are per prompt, too."""
    session = Session(6, num_choices=3).start()
    for index in range(6):
        session.push(ids_of("a"), index, num_cached_tokens=2, finish_reason="length")
    usage = session.generation.usage
    assert (usage.prompt_tokens, usage.cached_tokens) == (6, 4)
    assert (usage.completion_tokens, usage.generated_tokens) == (6, 6)


async def test_bug_31_every_choice_finishes_exactly_once() -> None:
    """By itself, by an error, by an abort of the engine, or by the close of the rest."""
    session = Session(5, stop=["dog"]).start()
    error = StepFailed("the step failed")
    session.end("stop", 0)
    session.push([], 1, finish_reason="error", error=error)
    session.push([], 2, finish_reason="abort")
    session.push(ids_of("dog"), 3)
    session.generation.close()
    session.generation.close()
    for index in range(5):
        session.end("abort", index)
    await session.generation.wait()
    assert session.finished == [
        Finished(0, "stop", "stop"),
        Finished(1, "error", "error", error),
        Finished(2, "abort", "abort"),
        Finished(3, "stop", "stop_string"),
        Finished(4, "abort", "abort"),
    ]
    assert session.engine.aborted == ["3", "4"]


def test_text_before_an_engines_error_is_delivered() -> None:
    """The held tail included; the client may use it."""
    session = Session(stop=["STOP"]).start()
    session.push_each(ids_of("the STO"))
    session.push([], finish_reason="error", error=StepFailed("no"))
    assert session.text == "the STO"


def test_closing_shows_nothing_more_and_does_not_count_what_was_held() -> None:
    """What the client did not get is not billed."""
    session = Session(stop=["STOP"]).start()
    session.push_each(ids_of("the "))
    delivered = session.generation.usage.completion_tokens
    session.push_each(ids_of("STO"))
    session.generation.close()
    assert session.text == "the "
    assert session.generation.usage.completion_tokens == delivered


def test_a_dead_engine_is_raised_by_start() -> None:
    """Sequences that it had taken are aborted."""
    session = Session(3, engine=ScriptedEngine(capacity=1))
    with pytest.raises(EngineDead):
        session.start()
    assert session.engine.aborted == ["0", "1", "2"]


def test_the_first_tokens_time_is_taken_once() -> None:
    """By the injected clock; outputs without ids do not count."""
    session = Session(2).start()
    assert session.generation.first_token_s is None
    session.push([])
    session.push(ids_of("a"), 1)
    session.push(ids_of("a"), 0)
    assert session.generation.first_token_s == 1.5


async def test_wait_waits_for_all_choices() -> None:
    """Not only for the first."""
    session = Session(2).start()
    waiting = asyncio.create_task(session.generation.wait())
    session.end("stop", 0)
    await asyncio.sleep(0)
    assert not waiting.done()
    session.end("stop", 1)
    await waiting


async def test_a_whole_reply_is_a_fold_over_the_same_events() -> None:
    """A `Fold` is an `on_event`."""
    engine, folded = ScriptedEngine(), Fold()
    generation = Generation(engine, TOKENIZER, [request(0), request(1)], on_event=folded)
    generation.start()
    engine.push("1", EngineOutput(tuple(ids_of("one")), finish_reason="length"))
    engine.push("0", EngineOutput(tuple(ids_of("zero")), finish_reason="length"))
    await generation.wait()
    assert [(r.index, r.text, r.finish_reason) for r in folded.results()] == [
        (0, "zero", "length"),
        (1, "one", "length"),
    ]


def test_byte_fallback_continues_the_prompts_text() -> None:
    """The first token's space separates it from the prompt."""
    tokenizer, engine, folded = served(byte_fallback()), ScriptedEngine(), Fold()
    prompt = tuple(tokenizer.encode("the", allow_special=False))
    sampling = SamplingParams(max_tokens=9)
    only = GenerationRequest(request_id="0", prompt_token_ids=prompt, sampling=sampling)
    Generation(engine, tokenizer, [only], on_event=folded).start()
    engine.push("0", EngineOutput(prompt, finish_reason="length"))
    assert folded.results()[0].text == " the"

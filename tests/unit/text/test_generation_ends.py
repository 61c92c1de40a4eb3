"""Generation, the counts and the ends: what is delivered, and one last event per choice."""

import asyncio

import pytest

from provider_core.errors import EngineDead, StepFailed
from provider_core.text.generation import (
    Event,
    Finished,
    Fold,
    Generation,
    TextDelta,
)
from provider_core.types import (
    EngineOutput,
    GenerationRequest,
    SamplingParams,
    Usage,
)
from tests.unit.text.generation_session import (
    TOKENIZER,
    Session,
    ids_of,
    request,
)
from tests.unit.text.scripted_engine import ScriptedEngine
from tests.unit.text.tokenizer_folders import byte_fallback, served


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


def test_cached_tokens_count_though_nobody_can_take_the_output() -> None:
    """A client that is cut while paused, or before its first token, has its discount."""
    session = Session(2).start()
    session.generation.pause()
    session.push(ids_of("a"), 0, num_cached_tokens=2)
    session.generation.close()
    assert session.generation.usage.cached_tokens == 2


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
        Finished(3, "stop", "stop_string", stop_string="dog"),
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
    session.push([])
    assert session.generation.first_token_s is None
    session.push(ids_of("a"), 0)
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

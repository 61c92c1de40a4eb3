"""Generation on the core's own engine: the same text as its ids, and slots that come back."""

from provider_core.engine.engine import LLMEngine
from provider_core.testing import ScriptedRunner
from provider_core.text.generation import Event, Fold, Generation, TextDelta
from provider_core.types import GenerationRequest, SamplingParams
from tests.unit.text.tokenizer_folders import byte_level, served

TOKENIZER = served(byte_level())
TEXT = "the quick brown fox 你好 👩‍👩‍👧‍👦 says hello\n\nUser: no"
EOS = 0


def make_requests(count: int, max_tokens: int = 500, name: str = "r") -> list[GenerationRequest]:
    """Requests of one prompt each, all different."""
    sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    return [
        GenerationRequest(
            request_id=f"{name}{index}",
            prompt_token_ids=(index + 3, 4, 5),
            sampling=sampling,
            eos_token_ids=frozenset({EOS}),
        )
        for index in range(count)
    ]


def make_engine(*, ends: bool = True) -> LLMEngine:
    """An engine whose model always says the same."""
    reply = TOKENIZER.encode(TEXT, allow_special=False)
    runner = ScriptedRunner(
        vocab_size=TOKENIZER.vocab_size,
        reply=[*reply, EOS] if ends else reply * 1000,
        max_num_seqs=4,
        max_model_len=100_000,
    )
    return LLMEngine(runner)


async def fill_all_slots(engine: LLMEngine) -> None:
    """Returns only if no slot is held for good."""
    requests = make_requests(engine.info.max_num_seqs, max_tokens=1, name="new")
    generation = Generation(engine, TOKENIZER, requests, on_event=Fold())
    generation.start()
    await generation.wait()


async def test_many_choices_stream_the_models_text() -> None:
    """More choices than slots; every one whole, ended by eos and counted with it."""
    engine, folded = make_engine(), Fold()
    try:
        generation = Generation(engine, TOKENIZER, make_requests(12), on_event=folded)
        generation.start()
        await generation.wait()
    finally:
        await engine.close()
    results = folded.results()
    assert [(r.text, r.finish_reason, r.native_finish_reason) for r in results] == [
        (TEXT, "stop", "eos")
    ] * 12
    num_tokens = 12 * (len(TOKENIZER.encode(TEXT, allow_special=False)) + 1)
    assert generation.usage.completion_tokens == num_tokens
    assert generation.usage.generated_tokens == num_tokens
    assert generation.usage.prompt_tokens == 36


async def test_a_stop_string_frees_the_slot() -> None:
    """The engine goes on for nobody."""
    engine, folded = make_engine(ends=False), Fold()
    try:
        requests = make_requests(1, max_tokens=50_000)
        generation = Generation(engine, TOKENIZER, requests, stop=["\n\nUser:"], on_event=folded)
        generation.start()
        await generation.wait()
        await fill_all_slots(engine)
    finally:
        await engine.close()
    (result,) = folded.results()
    assert result.text == TEXT.partition("\n\nUser:")[0]
    assert result.finish_reason == "stop"
    assert generation.usage.generated_tokens < 1000


async def test_closing_frees_the_slots() -> None:
    """In the middle of the text, from within an event."""
    engine = make_engine(ends=False)
    events: list[Event] = []

    def close_soon(event: Event) -> None:
        events.append(event)
        if sum(isinstance(event, TextDelta) for event in events) == 20:
            generation.close()

    try:
        requests = make_requests(4, max_tokens=50_000)
        generation = Generation(engine, TOKENIZER, requests, on_event=close_soon)
        generation.start()
        await generation.wait()
        await fill_all_slots(engine)
    finally:
        await engine.close()
    assert sum(isinstance(event, TextDelta) for event in events) == 20
    assert generation.usage.completion_tokens >= 20

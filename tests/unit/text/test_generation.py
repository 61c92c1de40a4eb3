"""Generation, the text: whole characters, stop strings, hidden tokens, log probabilities."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.text.generation import (
    Finished,
    PromptEcho,
    TextDelta,
    fold,
)
from tests.unit.text.generation_session import (
    EOS,
    PROMPT,
    TOKENIZER,
    Session,
    ids_of,
    logprobs_of,
)


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
    _, begin, found = min((text.find(s) + len(s), text.find(s), s) for s in stop)
    assert session.text == text[:begin]
    assert session.finished == [Finished(0, "stop", "stop_string", stop_string=found)]
    assert session.engine.aborted == ["0"]


def test_bug_06_the_tokens_of_a_stop_string_count() -> None:
    """They were generated and end the choice as eos does; later ones do not count."""
    ids = ids_of("hello STOP")
    session = Session(stop=["STOP"]).start()
    session.push_each(ids)
    session.push(ids_of("hello"))
    assert session.generation.usage.completion_tokens == len(ids)
    assert session.generation.usage.generated_tokens == len(ids) + len(ids_of("hello"))


def test_bug_18_tokens_beyond_a_stop_string_do_not_count() -> None:
    """An engine that speculates may hand over more than was asked for."""
    ids = ids_of("hello STOP")
    session = Session(stop=["STOP"]).start()
    session.push([*ids, *ids_of(" hello")])
    assert session.text == "hello "
    assert session.generation.usage.completion_tokens == len(ids)
    assert session.generation.usage.generated_tokens > len(ids)


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
    assert session.finished == [Finished(0, "stop", "stop_string", stop_string="dog")]
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

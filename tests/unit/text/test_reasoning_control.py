"""Reasoning within a budget, and grammars that bind only what follows it."""

import pytest

from provider_core.text.grammar_compiler import GrammarFactory
from provider_core.text.reasoning_control import ReasoningIds, reasoning_grammar
from provider_core.types import Constraint, Grammar
from tests.unit.text.byte_tokenizer import CALL, END, THINK_END, ByteTokenizer
from tests.unit.text.writing import reads, write

TOKENIZER = ByteTokenizer()
THINK = CALL  # any control token will do
IDS = ReasoningIds(open=(THINK,), close=(THINK_END,), gap=frozenset(b"\n"), eos=frozenset({END}))
ANSWER = GrammarFactory(TOKENIZER, frozenset({END})).compile(
    Constraint(kind="choice", source='["yes", "no"]')
)


def controlled(
    *,
    answer: Grammar | None = None,
    max_tokens: int | None = None,
    is_open: bool = True,
    ids: ReasoningIds = IDS,
) -> Grammar:
    """A grammar that there must be."""
    grammar = reasoning_grammar(ids, answer=answer, max_tokens=max_tokens, is_open=is_open)
    assert grammar is not None
    return grammar


def may_write(grammar: Grammar, *parts: bytes | int) -> bool:
    """Whether these may be written, and be all."""
    ids = [each for part in parts for each in ([part] if isinstance(part, int) else part)]
    return reads(grammar, ids, end=END)


def test_free_reasoning_and_a_free_answer_need_no_grammar() -> None:
    """The engine's short way stays short."""
    assert reasoning_grammar(IDS, answer=None, max_tokens=None, is_open=True) is None
    assert reasoning_grammar(IDS, answer=None, max_tokens=None, is_open=False) is None


def test_bug_22_a_schema_binds_the_answer_and_not_the_reasoning() -> None:
    """And there has to be an answer."""
    grammar = controlled(answer=ANSWER)
    assert may_write(grammar, b"{any thought}", THINK_END, b"yes")
    assert not may_write(grammar, b"{any thought}", THINK_END, b"maybe")
    assert not may_write(grammar, b"{any thought}", THINK_END)
    assert not may_write(grammar, b"{any thought}")
    assert not may_write(grammar, b"yes")


def test_models_may_break_lines_before_the_answer() -> None:
    """As they were trained to; but not on and on."""
    grammar = controlled(answer=ANSWER)
    assert may_write(grammar, b"hm\n", THINK_END, b"\n\nyes")
    assert not may_write(grammar, b"hm\n", THINK_END, b"\n\n\nyes")
    assert not may_write(grammar, b"hm\n", THINK_END, b"y\nes")


def test_bug_22_a_schema_does_not_suppress_reasoning_that_the_model_opens() -> None:
    """With its first token; a model that does not is bound at once."""
    grammar = controlled(answer=ANSWER, is_open=False)
    assert may_write(grammar, THINK, b"hm", THINK_END, b"no")
    assert may_write(grammar, b"no")
    assert not may_write(grammar, b"n", THINK, b"hm", THINK_END, b"o")
    assert not may_write(grammar, b"hm", THINK_END, b"no")


@pytest.mark.parametrize("answer", [None, ANSWER])
@pytest.mark.parametrize("is_open", [True, False])
def test_reasoning_is_closed_when_its_budget_is_used_up(
    answer: Grammar | None,
    is_open: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Not one token later, and earlier if the model likes."""
    grammar = controlled(answer=answer, max_tokens=3, is_open=is_open)
    opening = () if is_open else (THINK,)
    assert may_write(grammar, *opening, b"abc", THINK_END, b"yes")
    assert may_write(grammar, *opening, b"a", THINK_END, b"yes")
    assert may_write(grammar, *opening, THINK_END, b"yes")
    assert not may_write(grammar, *opening, b"abcd", THINK_END, b"yes")


@pytest.mark.parametrize("is_open", [True, False])
def test_a_budget_of_nothing_turns_reasoning_off(is_open: bool) -> None:  # noqa: FBT001 - a parameter
    """For models whose template cannot."""
    grammar = controlled(max_tokens=0, is_open=is_open)
    opening = () if is_open else (THINK,)
    assert may_write(grammar, *opening, THINK_END, b"yes")
    assert not may_write(grammar, *opening, b"a", THINK_END, b"yes")


def test_a_closing_tag_of_several_ids_is_forced_to_its_end() -> None:
    """Whatever of it the model has written already."""
    ids = ReasoningIds(open=(THINK,), close=tuple(b"<>"), gap=frozenset(), eos=frozenset({END}))
    grammar = controlled(max_tokens=3, ids=ids)
    assert may_write(grammar, b"abc", b"<>", b"yes")
    assert may_write(grammar, b"ab<", b">", b"yes")
    assert may_write(grammar, b"<>", b"a long answer")
    assert not may_write(grammar, b"abc", b"<a")


def test_an_opening_tag_of_several_ids_is_followed_beside_the_answer() -> None:
    """Until it is one or the other: both may begin alike."""
    ids = ReasoningIds(
        open=tuple(b"<t>"), close=(THINK_END,), gap=frozenset(), eos=frozenset({END})
    )
    answer = GrammarFactory(TOKENIZER, frozenset({END})).compile(
        Constraint(kind="choice", source='["<tool>", "yes"]')
    )
    grammar = controlled(answer=answer, max_tokens=3, is_open=False, ids=ids)
    assert may_write(grammar, b"<t>", b"abc", THINK_END, b"yes")
    assert not may_write(grammar, b"<t>", b"abcd", THINK_END, b"yes")
    assert may_write(grammar, b"<tool>")
    assert may_write(grammar, b"yes")
    assert not may_write(grammar, b"<t")
    assert not may_write(grammar, b"<ta>")
    assert not may_write(grammar, b"y<t>")
    free = controlled(max_tokens=3, is_open=False, ids=ids)
    assert may_write(free, b"<t>", b"abc", THINK_END, b"and so on")
    assert not may_write(free, b"<t>", b"abcd")
    assert may_write(free, b"<to be free")


@pytest.mark.parametrize("seed", range(5))
def test_a_random_model_ends_its_reasoning_in_time(seed: int) -> None:
    """And then answers as it must."""
    ids = write(
        controlled(answer=ANSWER, max_tokens=20),
        vocab_size=TOKENIZER.vocab_size,
        end=END,
        seed=seed,
    )
    assert ids is not None
    close = ids.index(THINK_END)
    assert close <= 20
    assert TOKENIZER.decode(ids[close:]).lstrip() in {"yes", "no"}

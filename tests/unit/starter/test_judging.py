"""Answers are judged by what was asked for, and judging needs no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from provider_starter.recipe.conversation import Call, Conversation, Kind, Message, answer_text
from provider_starter.recipe.evaluate import accuracy
from provider_starter.recipe.judging import calls_in, is_right
from provider_starter.recipe.vocabulary import load

CALLS = (Call("get", {"x": 1}), Call("get", {"x": "é"}))


def talk(kind: Kind, content: str = "", *, count: int = 0) -> Conversation:
    """Return a conversation whose expected answer is the given one."""
    last = Message("assistant", content, CALLS if kind == "call" else ())
    return Conversation("any", (Message("user", "?"), last), (), kind, ("a", "b", "c"), count)


@pytest.mark.parametrize(
    ("kind", "expected", "said", "right"),
    [
        ("exact", "Hi!", "Hi!", True),
        ("exact", "Hi!", "Hi", False),
        ("json", '{"a": 1}', '{"a":1}', True),
        ("json", '{"a": 1}', '{"a": "1"}', False),
        ("json", '{"a": 1}', '{"a": 1', False),
        ("refusal", "", "Sorry, no.", True),
        ("refusal", "", 'Sorry, <tool_call>\n{"name": "x"}\n</tool_call>', False),
        ("members", "", "b, a.", True),
        ("members", "", "a, a.", False),
        ("members", "", "a, d.", False),
    ],
)
def test_answers_are_judged_by_their_kind(
    kind: Kind, expected: str, said: str, *, right: bool
) -> None:
    """Each kind of request has its own idea of a right answer."""
    assert is_right(talk(kind, expected, count=2), said, 5, ended=True) == right


def test_an_unfinished_answer_is_wrong() -> None:
    """An answer that the model did not end is never right."""
    assert not is_right(talk("exact", "Hi!"), "Hi!", 2, ended=False)


def test_stories_are_judged_by_their_length() -> None:
    """A story has 100 to 300 tokens."""
    lengths = (99, 100, 300, 301)
    judged = [is_right(talk("story"), "Once.", n, ended=True) for n in lengths]
    assert judged == [False, True, True, False]


def test_calls_are_read_back() -> None:
    """Calls are found in the markup that they are written in, and nowhere else."""
    markup = answer_text(talk("call").messages[-1])
    assert calls_in(markup) == list(CALLS)
    assert calls_in(f"Well, {markup}") is None
    assert calls_in("<tool_call>\n{]\n</tool_call>") is None
    assert is_right(talk("call"), markup, 30, ended=True)


def test_any_callable_can_be_measured() -> None:
    """The table is made with whatever maps prompts to answers."""
    tokenizer = load()
    words = tokenizer.encode("Sorry, no.<|im_end|>").ids
    rows, misses = accuracy(lambda prompts, _: [words for _ in prompts], 4, skills=["refusal"])
    assert rows["refusal"].measured == 1
    assert rows["no markup without tools"].passed
    assert misses == []


def test_serving_and_judging_need_no_torch() -> None:
    """Only training and the recipe's own inference import torch."""
    code = (
        "import sys, provider_starter, provider_starter.recipe.evaluate\n"
        "assert not {'torch', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})

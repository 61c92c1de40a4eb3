"""The data generator is reproducible, and keeps its held-out side out of training."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from provider_starter.recipe.actions import COMPOSED, HELD_COMPOSED, REALISTIC
from provider_starter.recipe.conversation import Conversation, render
from provider_starter.recipe.lexicon import Lexicon
from provider_starter.recipe.mixture import SKILLS, Mixture
from provider_starter.recipe.phrasing import Draw, is_held

HELD_OUT_ITEMS = ("spell", "uppercase", "reverse", "copy")


def drawn(skill: str, n: int, *, held: bool) -> Iterator[Conversation]:
    """Yield conversations of one skill from one side of the split."""
    mixture = Mixture(11, Lexicon(), held=held)
    for _ in range(n):
        yield mixture.of(skill)


def test_mixture_is_reproducible() -> None:
    """The same seed gives the same conversations, another seed others."""
    streams = [Mixture(seed, Lexicon()) for seed in (3, 3, 4)]
    first, same, other = ([render(m.one().messages) for _ in range(50)] for m in streams)
    assert first == same
    assert first != other


@pytest.mark.parametrize("skill", SKILLS)
def test_phrasings_do_not_cross_the_split(skill: str) -> None:
    """No core phrasing is drawn both in training and in evaluation."""
    trained = {t.phrasing for t in drawn(skill, 250, held=False)}
    held = {t.phrasing for t in drawn(skill, 100, held=True)}
    strange = {p for a in COMPOSED if a.names[0] in HELD_COMPOSED for p in a.train}
    assert not trained & (held | strange)


@pytest.mark.parametrize("skill", HELD_OUT_ITEMS)
def test_words_do_not_cross_the_split(skill: str) -> None:
    """Words of held-out spelling tasks never occur in trained ones."""
    trained = {w for t in drawn(skill, 300, held=False) for w in words(t)}
    held = {w for t in drawn(skill, 100, held=True) for w in words(t)}
    assert held
    assert not trained & held


def words(talk: Conversation) -> list[str]:
    """Return the words that a letter task is about, numbers left out."""
    parts = talk.item.replace(",", " ").lower().split()
    return [p for p in parts if not p.isdigit()]


@pytest.mark.parametrize(("skill", "sign"), [("add", "+"), ("subtract", "-")])
def test_sums_do_not_cross_the_split(skill: str, sign: str) -> None:
    """Each pair of numbers is either trained on or held out."""
    for held in (False, True):
        for talk in drawn(skill, 200, held=held):
            left, _, right = talk.item.split(" = ")[0].split(" ")
            assert is_held(f"{left}{sign}{right}") == held


def test_held_out_actions_are_never_trained_on() -> None:
    """Some composed actions occur in evaluation only."""
    names = {n for a in COMPOSED if a.names[0] in HELD_COMPOSED for n in a.about}
    for skill in ("composed tools", "two calls", "none fits", "mixed"):
        for talk in drawn(skill, 100, held=False):
            said = {t["function"].get("description") for t in talk.tools}
            assert not said & names


def test_calls_name_a_declared_tool() -> None:
    """Every call in the data uses a tool and parameters that the conversation declares."""
    for skill in ("realistic tools", "composed tools", "two calls", "answer after result"):
        for talk in drawn(skill, 60, held=False):
            declared = {t["function"]["name"]: t["function"]["parameters"] for t in talk.tools}
            for call in (c for m in talk.messages for c in m.calls):
                assert set(call.arguments) <= set(declared[call.name]["properties"])


def test_every_action_fills_its_slots() -> None:
    """No request for a tool keeps an unfilled slot or an unmade choice."""
    for action in (*REALISTIC, *COMPOSED):
        for core in (*action.train, *action.held):
            draw = Draw(1, Lexicon())
            slots = {role.slot: role.make(draw) for role in action.roles}
            assert not set("{}|") & set(draw.compose(core, action.mood, **slots))


def test_made_choices_leave_no_trace() -> None:
    """No question of any skill shows the syntax of phrasings."""
    for skill in SKILLS:
        if skill != "extraction":
            for talk in drawn(skill, 60, held=False):
                asked = [m.content for m in talk.messages if m.role == "user"]
                assert not [a for a in asked if set("{|}") & set(a)]

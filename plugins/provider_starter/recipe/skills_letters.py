"""What needs the letters of a word: copy, uppercase, spell, reverse."""

from __future__ import annotations

from provider_starter.recipe.conversation import Conversation, Message
from provider_starter.recipe.phrasing import Draw, Phrases, phrases

COPY = phrases("copy")
UPPER = phrases("upper")
SPELL = phrases("spell")
REVERSE = phrases("reverse")


def _quoted(draw: Draw, text: str) -> str:
    return draw.pick(("{}", "{}", '"{}"', '"{}"', "'{}'", "`{}`", "“{}”")).format(text)


def _ask(
    skill: str, draw: Draw, forms: Phrases, item: str, answer: str, *, letters: bool
) -> Conversation:
    text = draw.phrase(forms, q=_quoted(draw, item), text=item)
    messages = (Message("user", text), Message("assistant", answer, letters=letters))
    return Conversation(skill, messages, phrasing=draw.core, item=item)


def _cased(draw: Draw, word: str) -> str:
    roll = draw.rng.random()
    return word.capitalize() if roll < 0.15 else word.upper() if roll < 0.18 else word


def copy(draw: Draw) -> Conversation:
    """Ask for the same words back."""
    words = [
        draw.word() if draw.chance(0.8) else _cased(draw, draw.word())
        for _ in range(draw.number(1, 6))
    ]
    if draw.chance(0.15):
        words.insert(draw.number(0, len(words)), str(draw.number(0, 999)))
    text = draw.pick((" ", " ", " ", ", ")).join(words)
    return _ask("copy", draw, COPY, text, text, letters=False)


def uppercase(draw: Draw) -> Conversation:
    """Ask for one to four words in capital letters."""
    words = [_cased(draw, draw.word()) for _ in range(draw.pick((1, 1, 1, 2, 2, 3, 4)))]
    text = " ".join(words)
    return _ask("uppercase", draw, UPPER, text, text.upper(), letters=True)


def spell(draw: Draw) -> Conversation:
    """Ask for the letters of a word."""
    word = _cased(draw, draw.word())
    return _ask("spell", draw, SPELL, word, "-".join(word), letters=False)


def reverse(draw: Draw) -> Conversation:
    """Ask for a word backwards."""
    word = draw.word()
    if draw.chance(0.15):
        word = word.capitalize()
    return _ask("reverse", draw, REVERSE, word, word[::-1], letters=True)

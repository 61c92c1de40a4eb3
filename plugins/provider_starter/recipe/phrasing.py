"""Compose requests: courtesy x core x tail x noise, with held-out cores and items."""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from provider_starter.recipe.lexicon import WORDS, Lexicon

T = TypeVar("T")
Mood = Literal["ask", "question", "say"]

_HELD_SHARE = 10  # one item in this many is never trained on
_CHOICE = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"(\{\w+\})")

_COURTESY: dict[str, dict[Mood, list[str]]] = json.loads(
    (WORDS / "courtesy.json").read_text(encoding="utf-8")
)
_LEAD, _TAIL, _ENDS = _COURTESY["lead"], _COURTESY["tail"], _COURTESY["end"]


def is_held(item: str) -> bool:
    """Return whether this item belongs to the held-out tenth."""
    return zlib.crc32(item.lower().encode()) % _HELD_SHARE == 0


@dataclass(frozen=True, slots=True)
class Phrases:
    """The core phrasings of one request; `held` ones are for evaluation only.

    `(a|b)` in a phrasing is a choice, `{x}` a slot.
    """

    mood: Mood
    train: tuple[str, ...]
    held: tuple[str, ...]


def phrases(name: str) -> Phrases:
    """Return the phrasings of a request by their name in `words/phrasings.json`."""
    entry = _PHRASINGS[name]
    return Phrases(entry["mood"], tuple(entry["train"]), tuple(entry["held"]))


_PHRASINGS = json.loads((WORDS / "phrasings.json").read_text(encoding="utf-8"))


class Draw:
    """One source of chance, which side of the split it draws from, and its last core phrasing.

    Args:
        seed: The same seed gives the same draws.
        lexicon: Where words come from.
        held: Whether to draw held-out phrasings and items instead of the trained ones.

    """

    def __init__(self, seed: int | str, lexicon: Lexicon, *, held: bool = False) -> None:
        self.rng = random.Random(seed)
        self.lexicon = lexicon
        self.held = held
        self.core = ""

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[int(self.rng.random() * len(options))]

    def chance(self, share: float) -> bool:
        """Return true with the given probability."""
        return self.rng.random() < share

    def number(self, low: int, high: int) -> int:
        """Return a whole number between the bounds, both included."""
        return self.rng.randint(low, high)

    def fresh(self, make: Callable[[], T]) -> T:
        """Return what `make` gives, drawn again until it is on this side of the split."""
        for _ in range(400):
            item = make()
            if is_held(str(item)) == self.held:
                return item
        message = "no item on this side of the split"
        raise LookupError(message)

    def word(self) -> str:
        """Return a lower-case word, real or made up."""
        return self.fresh(lambda: self.lexicon.word(self.rng, pieces=not self.held))

    def made_up(self) -> str:
        """Return a pronounceable word that means nothing."""
        return self.fresh(lambda: self.lexicon.made_up(self.rng))

    def name(self) -> str:
        """Return a first name, sometimes made up."""
        return self.fresh(lambda: self.lexicon.name(self.rng))

    def city(self) -> str:
        """Return a place name, sometimes made up."""
        return self.fresh(lambda: self.lexicon.city(self.rng))

    def thing(self) -> str:
        """Return a noun, sometimes made up or of two words."""
        return self.fresh(lambda: self.lexicon.thing(self.rng))

    def expand(self, text: str) -> str:
        """Return the text with each choice made."""
        while "(" in text:
            text, found = _CHOICE.subn(lambda m: self.pick(m.group(1).split("|")), text)
            if not found:
                break
        return text

    def phrase(self, phrases: Phrases, **slots: object) -> str:
        """Return one request; its slots are filled last, so that noise cannot touch them."""
        self.core = self.pick(phrases.held if self.held else phrases.train)
        return self.compose(self.core, phrases.mood, **slots)

    def compose(self, core: str, mood: Mood, **slots: object) -> str:
        """Return a core phrasing dressed with courtesy, tail, end mark and noise."""
        text = core
        lead = self.pick(_LEAD[mood]) if self.chance(0.45) else ""
        tail = self.pick(_TAIL[mood]) if self.chance(0.2) and not text.endswith((":", '}"')) else ""
        ends_in_slot = text.endswith(("{text}", ":"))
        if ends_in_slot:
            tail = ""
        text = self.expand(lead + text + tail)
        text = text.rstrip() if not ends_in_slot else text
        if text[-1:] not in "?!.:" and not ends_in_slot:
            text += self.pick(_ENDS[mood])
        if not self.chance(0.25):
            text = text[:1].upper() + text[1:]
        text = "".join(p if p.startswith("{") else self._noise(p) for p in _SLOT.split(text))
        for key, value in slots.items():
            text = text.replace("{" + key + "}", str(value))
        return text

    def _noise(self, text: str) -> str:
        """Return the text, now and then with typing faults."""
        roll = self.rng.random()
        if roll < 0.04 and len(text) > 6:  # swap two neighbours
            at = self.number(1, len(text) - 3)
            if text[at].isalpha() and text[at + 1].isalpha():
                text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        elif roll < 0.07 and len(text) > 6:  # drop one letter
            at = self.number(1, len(text) - 2)
            if text[at].isalpha():
                text = text[:at] + text[at + 1 :]
        elif roll < 0.09:
            text = text.replace("'", "")
        elif roll < 0.11:
            text = text.upper()
        elif roll < 0.14:
            text = text.lower()
        return text

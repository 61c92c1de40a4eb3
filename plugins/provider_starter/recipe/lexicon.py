"""The words that fill the slots: real ones, made-up ones, and pieces of the vocabulary."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = Path(__file__).parent / "words"
_ONSETS = (
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl l m n p pl pr qu r s sh sk sl sm sn sp st "
    "t th tr v w y z"
)
_VOWELS = "a e i o u a e i o u ai ea ee oa oo ou ie"
_CODAS = "- - - - b ck d f g k l ll m n nd ng nk nt p r rd rk rn rt s sh ss st t th x z"


class Lexicon:
    """Word lists, and the rules that make more words.

    Args:
        pieces: Lower-case letter pieces of the vocabulary, so that words can be built to
            contain each of them; none before there is a vocabulary.

    """

    def __init__(self, pieces: Sequence[str] = ()) -> None:
        text = (WORDS / "words.json").read_text(encoding="utf-8")
        self.lists: dict[str, Any] = json.loads(text)  # lists and tables by name
        self.pieces = tuple(pieces)
        self.nouns: list[str] = self.lists["nouns"]
        self._onsets = _ONSETS.split()
        self._vowels = _VOWELS.split()
        self._codas = ["" if c == "-" else c for c in _CODAS.split()]

    def made_up(self, rng: random.Random) -> str:
        """Return a pronounceable word that means nothing."""
        out = ""
        for _ in range(rng.choice((1, 2, 2, 2, 3))):
            out += rng.choice(self._onsets) + rng.choice(self._vowels)
            out += rng.choice(self._codas) if rng.random() < 0.6 else ""
        return out if len(out) > 2 else out + "n"

    def word(self, rng: random.Random, *, pieces: bool = True) -> str:
        """Return a lower-case word; with `pieces` some are glued from the vocabulary."""
        roll = rng.random()
        if roll < 0.45:
            return rng.choice(self.nouns)
        if pieces and self.pieces and roll < 0.75:
            out = ""
            while len(out) < 3 or (len(out) < 7 and rng.random() < 0.5):
                out += rng.choice(self.pieces)
            return out if len(out) <= 12 else rng.choice(self.pieces)
        return self.made_up(rng)

    def name(self, rng: random.Random) -> str:
        """Return a first name, made up in a third of the cases."""
        if rng.random() < 0.65:
            return str(rng.choice(self.lists["names"]))
        return self.made_up(rng).capitalize()

    def city(self, rng: random.Random) -> str:
        """Return a place name, made up in two of five cases."""
        if rng.random() < 0.6:
            return str(rng.choice(self.lists["cities"]))
        tail = rng.choice(("", "", "ton", "ville", "berg", "a", "o", "ia", " City"))
        lead = rng.choice(("", "", "", "", "New ", "San ", "Port "))
        return lead + self.made_up(rng).capitalize() + tail

    def thing(self, rng: random.Random) -> str:
        """Return a noun, sometimes made up, sometimes with an adjective."""
        noun = rng.choice(self.nouns) if rng.random() < 0.6 else self.made_up(rng)
        if rng.random() < 0.25:
            return f"{rng.choice(('red', 'blue', 'big', 'small', 'old', 'new', 'green'))} {noun}"
        return noun

"""Make the vocabulary, and turn conversations into token ids."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

from provider_starter.recipe.conversation import SPECIAL_TOKENS, Conversation, render, segments
from provider_starter.recipe.lexicon import Lexicon
from provider_starter.recipe.mixture import Mixture

SIZE = 2048
MODEL_DIR = Path(__file__).parent.parent / "model"
# A word never carries its leading space, digits stand alone, and a line feed stands alone so
# that a prompt ends at the same token whatever follows it.
PATTERN = r"\p{L}+|\p{N}|\n|[^\p{L}\p{N}\n]+"


def make(conversations: int = 40_000, seed: int = 1) -> Tokenizer:
    """Return a byte-level BPE vocabulary learned from generated conversations."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence(
        [Split(Regex(PATTERN), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(conversations, seed), trainer)
    return tokenizer


def _texts(conversations: int, seed: int) -> Iterator[str]:
    """Yield texts to count; words in capitals or backwards get no tokens of their own."""
    mixture = Mixture(seed, Lexicon())
    for _ in range(conversations):
        talk = mixture.one()
        text = render(
            tuple(m for m in talk.messages if not m.letters and not m.content.isupper()), talk.tools
        )
        for special in SPECIAL_TOKENS:
            text = text.replace(special, "\n")
        yield text


def load(path: Path | None = None) -> Tokenizer:
    """Return the vocabulary that is served."""
    return Tokenizer.from_file(str(path or MODEL_DIR / "tokenizer.json"))


def letter_pieces(tokenizer: Tokenizer) -> list[str]:
    """Return the tokens that consist of lower-case Latin letters, in order."""
    tokens: dict[str, int] = tokenizer.get_vocab()
    return sorted(t for t in tokens if t.isascii() and t.isalpha() and t.islower())


class Encoder:
    """Turns conversations into ids and a mark for each id that carries loss.

    Args:
        tokenizer: The vocabulary.
        seed: Decides which words get an unusual split.
        dropout: Share of user turns that are split at random, so that the letters inside each
            token become known; 0 to encode as when serving.

    """

    def __init__(self, tokenizer: Tokenizer, seed: int = 0, dropout: float = 0.0) -> None:
        self._tokenizer = tokenizer
        self._rng = random.Random(seed)
        self._dropout = dropout
        self._loose = Tokenizer.from_str(tokenizer.to_str())
        model = json.loads(tokenizer.to_str())["model"]
        merges = [tuple(m) for m in model["merges"]]
        self._loose.model = BPE(vocab=model["vocab"], merges=merges, dropout=0.15)

    def __call__(self, talk: Conversation) -> tuple[list[int], list[bool]]:
        """Return the ids of a conversation, and which of them are learned."""
        ids: list[int] = []
        learned: list[bool] = []
        for piece in segments(talk.messages, talk.tools):
            if piece.letters:
                part = [i for c in piece.text for i in self.ids(c)]
            elif not piece.learned and self._dropout and self._rng.random() < self._dropout:
                part = self._loose.encode(piece.text).ids
            else:
                part = self.ids(piece.text)
            ids += part
            learned += [piece.learned] * len(part)
        return ids, learned

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text as the server would split it."""
        found: list[int] = self._tokenizer.encode(text).ids
        return found


def main() -> None:
    """Write `tokenizer.json` for the model that is served."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=MODEL_DIR / "tokenizer.json")
    args = parser.parse_args()
    make().save(str(args.out))


if __name__ == "__main__":
    main()

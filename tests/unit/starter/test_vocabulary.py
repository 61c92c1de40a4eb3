"""The vocabulary loses nothing, and its control tokens are single ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from provider_starter.recipe.conversation import SPECIAL_TOKENS
from provider_starter.recipe.lexicon import Lexicon
from provider_starter.recipe.mixture import SKILLS, Mixture
from provider_starter.recipe.vocabulary import Encoder, load

MODEL = Path(__file__).parents[3] / "plugins/provider_starter/model"
TOKENIZER: Tokenizer = load()


@given(st.text())
def test_any_text_survives(text: str) -> None:
    """Encoding and decoding gives back every character, known or not."""
    ids = TOKENIZER.encode(text).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


def test_every_byte_has_a_token() -> None:
    """All of Unicode's encodings are covered, because each byte is."""
    for number in (0, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFD, 0x10000, 0x10FFFF):
        ids = TOKENIZER.encode(chr(number)).ids
        assert TOKENIZER.decode(ids, skip_special_tokens=False) == chr(number)


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_control_tokens_are_single_ids(token: str) -> None:
    """Each control token is one id, also in the middle of a text."""
    middle = TOKENIZER.encode(f"a{token}b").ids[1:-1]
    assert middle == [TOKENIZER.token_to_id(token)]
    assert TOKENIZER.encode(token, add_special_tokens=False).ids == middle


def test_configuration_agrees_with_the_vocabulary() -> None:
    """The stop ids and the size in the configuration are those of the vocabulary."""
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    generation = json.loads((MODEL / "generation_config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] == TOKENIZER.get_vocab_size()
    assert config["eos_token_id"] == TOKENIZER.token_to_id("<|im_end|>")
    ends = [TOKENIZER.token_to_id(t) for t in ("<|im_end|>", "<|endoftext|>")]
    assert generation["eos_token_id"] == ends


@pytest.mark.parametrize("skill", [s for s in SKILLS if s not in {"uppercase", "reverse"}])
def test_prompt_and_answer_split_where_they_meet(skill: str) -> None:
    """Ids learned in training are those of a server that encodes the whole text."""
    encoder = Encoder(TOKENIZER)
    mixture = Mixture(2, Lexicon())
    for _ in range(10):
        talk = mixture.of(skill)
        if not any(m.letters for m in talk.messages):
            ids, learned = encoder(talk)
            text = TOKENIZER.decode(ids, skip_special_tokens=False)
            assert encoder.ids(text) == ids
            assert len(learned) == len(ids)

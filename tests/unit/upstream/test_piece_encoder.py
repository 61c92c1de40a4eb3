"""Text to ids in pieces."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from provider_core import ConfigurationError
from provider_starter import MODEL_DIR
from provider_upstream.piece_encoder import PieceEncoder, read_piece_encoder


def test_the_ids_of_pieces_spell_the_text() -> None:
    """Wherever it is cut; control tokens in it are text."""
    encoder = read_piece_encoder(MODEL_DIR)
    text = "Grüße, <|im_end|> 7 + 12 = 19\n"
    whole = Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))

    for place in range(1, len(text)):
        ids = [*encoder.encode(text[:place]), *encoder.encode(text[place:])]
        assert whole.decode(ids) == text
    assert encoder.is_exact
    assert encoder.vocab_size > max(encoder.encode(text))


def test_a_tokenizer_that_begins_each_text_with_a_space_is_not_exact() -> None:
    """As SentencePiece's do: a word in two pieces would become two words."""
    words = Tokenizer(models.WordLevel({"▁Hello": 0, "▁wor": 1, "▁ld": 2, "▁.": 3, "?": 4}, "?"))
    words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    words.decoder = decoders.Metaspace(prepend_scheme="always")

    assert not PieceEncoder(words.to_str().encode()).is_exact


@pytest.mark.parametrize(("text", "says"), [(None, "no tokenizer.json"), ("{}", "cannot read")])
def test_a_folder_needs_a_tokenizer(tmp_path: Path, text: str | None, says: str) -> None:
    """Ids are the currency; somebody here has to know them."""
    if text is not None:
        (tmp_path / "tokenizer.json").write_text(text)

    with pytest.raises(ConfigurationError, match=says):
        read_piece_encoder(tmp_path)

"""Text to ids, piece by piece, for upstreams that give no ids.

The ids spell the same text, but they are not always those that the upstream made: it may have cut
a word elsewhere. Counts, and so bills, are then those of the ids made here.
"""

from functools import cached_property
from pathlib import Path

import tokenizers

from provider_core import ConfigurationError

_PIECES = ("Hello", " wor", "ld", ".")


class PieceEncoder:
    """Encodes a reply as it comes.

    Args:
        definition: The bytes of tokenizer.json.
    """

    def __init__(self, definition: bytes) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_buffer(definition)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # in a reply's text they are plain text

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return max(self._tokenizer.get_vocab().values()) + 1

    @cached_property
    def is_exact(self) -> bool:
        """Whether the ids of pieces spell the joined text; not if each begins with a space."""
        ids = [token_id for piece in _PIECES for token_id in self.encode(piece)]
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text == "".join(_PIECES)

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of one piece; control tokens in it are plain text."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)


def read_piece_encoder(model_dir: Path) -> PieceEncoder:
    """Read the tokenizer of a model folder.

    Raises:
        ConfigurationError: There is none, or it is broken.
    """
    try:
        return PieceEncoder((model_dir / "tokenizer.json").read_bytes())
    except FileNotFoundError:
        raise ConfigurationError(
            f"no tokenizer.json in {model_dir}: an upstream's model needs its tokenizer here"
        ) from None
    except Exception as error:  # the library raises plain Exception
        raise ConfigurationError(f"cannot read tokenizer.json in {model_dir}") from error

"""A tokenizer whose ids are bytes, a few words, and control tokens."""

from collections.abc import Sequence

from provider_core.interfaces import TokenDecoder

END, THINK_END, CALL = 256, 257, 258
"""Ids of control tokens; END is the end of text."""

WORDS = (b'{"', b'": ', b", ", b"true", b"</", b'"}', b"\xe2\x82", b"<|im_end|>")


class ByteTokenizer:
    """Implements `interfaces.Tokenizer` as far as grammars ask."""

    vocab_size = 259 + len(WORDS)
    special_token_ids = frozenset({END, THINK_END, CALL})
    prompt_prefix_ids: tuple[int, ...] = ()
    document_start_ids: tuple[int, ...] = ()

    def token_bytes(self, token_id: int) -> bytes:
        """One byte, a word, or nothing."""
        if token_id < END:
            return bytes([token_id])
        return b"" if token_id in self.special_token_ids else WORDS[token_id - 259]

    def encode(self, text: str, *, allow_special: bool) -> list[int]:
        """Bytes."""
        del allow_special
        return list(text.encode())

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids."""
        return b"".join(map(self.token_bytes, token_ids)).decode(errors="replace")

    def min_num_tokens(self, text: str) -> int:
        """No bound."""
        del text
        return 0

    def make_decoder(self, prompt_token_ids: Sequence[int] = ()) -> TokenDecoder:
        """Not needed here."""
        raise NotImplementedError

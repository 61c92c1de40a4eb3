"""A tokenizer's vocabulary as llguidance wants it."""

from dataclasses import dataclass

from llguidance import LLTokenizer, TokenizerWrapper

from provider_core.interfaces import Tokenizer
from provider_core.text.tokenizer import FolderTokenizer


def read_vocabulary(tokenizer: Tokenizer, eos_token_ids: frozenset[int]) -> LLTokenizer:
    """Read the bytes of every id. Takes some 0.3 s for 150,000 ids, half of it in one call.

    Args:
        tokenizer: Any.
        eos_token_ids: What may end a text; control tokens whatever the tokenizer says. Without
            any, a text that could be longer goes on.
    """
    if isinstance(tokenizer, FolderTokenizer):
        tokens = list(tokenizer.all_token_bytes())
    else:
        tokens = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocab_size)]
    # llguidance needs an end of text. One that no model can draw does no harm.
    ends = sorted(eos_token_ids) or [len(tokens)]
    special_ids = tokenizer.special_token_ids | frozenset(ends)
    tokens += [b""] * (max(special_ids) + 1 - len(tokens))
    for token_id in special_ids:
        tokens[token_id] = b"<%d>" % token_id
    vocabulary = _Vocabulary(tokens, sorted(special_ids), ends[0])
    plain = LLTokenizer(TokenizerWrapper(vocabulary), eos_token=ends, slices=[])
    return plain.with_slices(LLTokenizer.json_slices())


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """The attributes that `TokenizerWrapper` reads."""

    tokens: list[bytes]
    special_token_ids: list[int]
    eos_token_id: int
    bos_token_id: None = None

    def __call__(self, text: str) -> list[int]:
        """Tokenise; only asked where a grammar forces text, which ours do not."""
        raise NotImplementedError

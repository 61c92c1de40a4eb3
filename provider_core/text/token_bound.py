"""A lower bound of how many tokens a text has, without encoding it.

Any segmentation of a text into tokens uses up the text's bytes. If no token holds the byte b more
than r times, a text with n of them has at least n / r tokens; the bound is the best over all bytes.
Four megabytes of one letter are refused in milliseconds that way, and never encoded.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from provider_core.text.vocabulary import METASPACE, Vocabulary

_LOSSLESS_PRE_TOKENIZERS = {"ByteLevel", "Metaspace", "Digits", "Punctuation", "Split", "Sequence"}
_PRINTABLE = range(0x21, 0x7F)


class TokenBound:
    """Bounds texts for one tokenizer; where bytes may get lost on the way it answers 0.

    Args:
        definition: The object in tokenizer.json.
        vocabulary: Bytes of its ids.
        added_tokens: All of them, special ones included.
    """

    def __init__(
        self,
        definition: Mapping[str, Any],  # JSON
        vocabulary: Vocabulary,
        added_tokens: Iterable[tokenizers.AddedToken],
    ) -> None:
        self._vocabulary = vocabulary
        self._added_tokens = tuple(added_tokens)
        self._forms = _normal_forms(definition.get("normalizer"))
        self._is_lossless = _is_lossless(definition.get("pre_tokenizer"))

    def __call__(self, text: str) -> int:
        """At least so many tokens."""
        if self._forms is None or not self._is_lossless or not self._max_counts.any():
            return 0
        for form in self._forms:
            text = unicodedata.normalize(form, text)
        if self._vocabulary.is_metaspace:
            text = text.replace(METASPACE, " ")
        data = np.frombuffer(text.encode(), np.uint8)
        counts = np.bincount(data, minlength=256)
        known = self._max_counts > 0
        return int(np.max(-(-counts[known] // self._max_counts[known])))

    @cached_property
    def _max_counts(self) -> npt.NDArray[np.int64]:
        """int64 `[256]`: most occurrences of each byte in one token; 0 is no knowledge."""
        tokens = [*self._vocabulary.token_bytes]
        if len({token for token in tokens if len(token) == 1}) < 256:
            return np.zeros(256, np.int64)  # some text becomes an unknown token of any length
        tokens += [token.content.encode() for token in self._added_tokens]
        owners = np.repeat(np.arange(len(tokens)), [len(token) for token in tokens])
        pairs, counts = np.unique(
            owners * 256 + np.frombuffer(b"".join(tokens), np.uint8), return_counts=True
        )
        most = np.zeros(256, np.int64)
        np.maximum.at(most, pairs % 256, counts)
        if any(token.lstrip or token.rstrip for token in self._added_tokens):
            swallowed = np.ones(256, bool)  # such a token eats the white space beside it
            swallowed[_PRINTABLE] = False
            most[swallowed] = 0
        return most


def _normal_forms(normalizer: Mapping[str, Any] | None) -> list[Any] | None:
    """Unicode normal forms a normalizer applies, or `None` if it does what we cannot follow."""
    if normalizer is None:
        return []
    match normalizer.get("type"):
        case "NFC" | "NFD" | "NFKC" | "NFKD" as form:
            return [form]
        case "Prepend":
            return []
        case "Replace" if normalizer.get("pattern") == {"String": " "}:
            return []
        case "Sequence":
            forms = [_normal_forms(step) for step in normalizer.get("normalizers", ())]
            return None if None in forms else [form for some in forms if some for form in some]
        case _:
            return None


def _is_lossless(pre_tokenizer: Mapping[str, Any] | None) -> bool:
    if pre_tokenizer is None:
        return True
    if pre_tokenizer.get("behavior") == "Removed":
        return False
    return pre_tokenizer.get("type") in _LOSSLESS_PRE_TOKENIZERS and all(
        map(_is_lossless, pre_tokenizer.get("pretokenizers", ()))
    )

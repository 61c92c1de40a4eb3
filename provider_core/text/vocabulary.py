"""What each id of a vocabulary means as bytes, and decoding that never splits a character.

A tokenizer's own `decode` works on whole sequences. Here its `decoder` section says how an id's
spelling turns into bytes, which are remembered: a token costs one look-up, is exact when it is a
part of a character, and a stream of steps equals the whole.

Supported decoders are the two families that language models use: the byte-level alphabet of GPT-2
and the metaspace (`▁`) of SentencePiece, with or without byte fallback (`<0xE2>`).
"""

import codecs
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

from provider_core.errors import ConfigurationError

METASPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_level_alphabet() -> dict[int, str]:
    """The characters that stand for bytes in byte-level BPE, as a table for `str.translate`.

    Printable Latin-1 stands for itself and the other bytes for U+0100 onwards, in order
    (`bytes_to_unicode` of GPT-2's encoder.py).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        0x100 + i: chr(byte) for i, byte in enumerate(others)
    }


class Vocabulary:
    """Bytes and text of every id, spelled out when an id first occurs.

    Args:
        read_token: The spelling of an id in the vocabulary; `None` for a gap.
        read_tokens: Ids of the model's tokens by their spelling, for whoever wants all.
        added_tokens: Ids of the added tokens by their content.
        special_ids: Those of them that are control and never shown.
        decoder: The `decoder` section of tokenizer.json.

    Raises:
        ConfigurationError: The decoder is of another family.

    Attributes:
        texts: What ids add to text where nothing is pending, as far as it is known: ids are absent
            whose bytes end within a character, or that did not occur yet.
        is_metaspace: Whether `▁` and the space are one.
        strips_first_space: Whether text that begins with an id drops that id's leading space.
    """

    def __init__(
        self,
        read_token: Callable[[int], str | None],
        read_tokens: Callable[[], Mapping[str, int]],
        *,
        added_tokens: Mapping[str, int],
        special_ids: frozenset[int],
        decoder: Mapping[str, Any] | None,  # JSON
    ) -> None:
        steps = list(_flatten(decoder))
        kinds = {step.get("type") for step in steps}
        self.is_metaspace = "ByteLevel" not in kinds
        if not self.is_metaspace:
            self._spell = _spell_byte_level
        elif kinds & {"Metaspace", "ByteFallback", "Replace"}:
            self._spell = _spell_metaspace
        else:
            message = f"decoder {sorted(map(str, kinds))} of tokenizer.json is not supported"
            raise ConfigurationError(message)
        self.strips_first_space = any(map(_strips_first_space, steps))
        self._read_token = read_token
        self._read_tokens = read_tokens
        self._added = {
            token_id: b"" if token_id in special_ids else content.encode()
            for content, token_id in added_tokens.items()
        }
        self._bytes = dict(self._added)
        self.texts: dict[int, str] = {}

    def bytes_of(self, token_id: int) -> bytes:
        """What one id adds; nothing for special ids, gaps and ids beyond the vocabulary."""
        data = self._bytes.get(token_id)
        if data is None:
            token = self._read_token(token_id) if token_id >= 0 else None
            data = self._bytes[token_id] = b"" if token is None else self._spell([token])[0]
        return data

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """`bytes_of` of all ids, made when it is first asked for: that takes 0.1 s for 150,000."""
        tokens = self._read_tokens()
        table = [b""] * (max([-1, *tokens.values(), *self._added]) + 1)
        for token_id, data in zip(tokens.values(), self._spell(tokens), strict=True):
            table[token_id] = data
        for token_id, data in self._added.items():
            table[token_id] = data
        return table

    def join_bytes(self, token_ids: Iterable[int]) -> bytes:
        """All bytes of a sequence; ids beyond the vocabulary add none."""
        return b"".join(map(self.bytes_of, token_ids))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a whole sequence, invalid bytes as U+FFFD."""
        data = self.join_bytes(token_ids)
        return (data.removeprefix(b" ") if self.strips_first_space else data).decode(
            errors="replace"
        )


class VocabularyDecoder:
    """Decodes one sequence id by id; the steps and the flush join to the whole decoding.

    Args:
        vocabulary: Shared by all sequences.
        at_start: Nothing visible precedes, so that a first space may have to go.
    """

    __slots__ = ("_is_plain", "_pending", "_strips", "_texts", "_vocabulary")

    def __init__(self, vocabulary: Vocabulary, *, at_start: bool) -> None:
        self._vocabulary = vocabulary
        self._texts = vocabulary.texts
        self._pending = b""  # the beginning of a character
        self._strips = at_start and vocabulary.strips_first_space
        self._is_plain = not self._strips  # nothing is pending and nothing is to be stripped

    def step(self, token_id: int) -> str:
        """Add one id; return the text that became certain, maybe empty, never half a character."""
        if self._is_plain:
            text = self._texts.get(token_id)
            if text is not None:
                return text
        return self._step_bytes(token_id)

    def _step_bytes(self, token_id: int) -> str:
        data = self._pending + self._vocabulary.bytes_of(token_id)
        was_plain = self._is_plain
        if self._strips and data:
            data = data.removeprefix(b" ")
            self._strips = False
        text, num_consumed = codecs.utf_8_decode(data, "replace", False)  # noqa: FBT003
        self._pending = data[num_consumed:]
        self._is_plain = not self._pending and not self._strips
        if was_plain and self._is_plain:
            self._texts[token_id] = text
        return text

    def flush(self) -> str:
        """Return what was held back at the end, incomplete bytes as U+FFFD."""
        text = self._pending.decode(errors="replace")
        self._pending = b""
        self._is_plain = not self._strips
        return text


_ALPHABET = _byte_level_alphabet()
_STRANGE = re.compile(f"[^{re.escape(''.join(map(chr, _ALPHABET)))}]")


def _spell_byte_level(tokens: Collection[str]) -> list[bytes]:
    """Bytes of each; one that holds other characters, as an added token may, is plain text."""
    whole = "".join(tokens)
    if _STRANGE.search(whole):
        return [token.encode() if _STRANGE.search(token) else _translate(token) for token in tokens]
    data = _translate(whole)  # in one go: a vocabulary of 150,000 takes a quarter of a second else
    ends = accumulate(map(len, tokens))
    return [data[end - len(token) : end] for token, end in zip(tokens, ends, strict=True)]


def _translate(text: str) -> bytes:
    return text.translate(_ALPHABET).encode("latin-1")


def _spell_metaspace(tokens: Collection[str]) -> list[bytes]:
    return [
        bytes.fromhex(match[1])
        if (match := _BYTE_TOKEN.fullmatch(token))
        else token.replace(METASPACE, " ").encode()
        for token in tokens
    ]


def _flatten(decoder: Mapping[str, Any] | None) -> Iterable[Mapping[str, Any]]:
    if decoder is None:
        return
    if decoder.get("type") == "Sequence":
        for step in decoder.get("decoders", ()):
            yield from _flatten(step)
    else:
        yield decoder


def _strips_first_space(step: Mapping[str, Any]) -> bool:
    if step.get("type") == "Strip":
        return bool(step.get("content") == " " and step.get("start", 0))
    if step.get("type") == "Metaspace":
        return bool(step.get("prepend_scheme", "always") != "never")
    return False

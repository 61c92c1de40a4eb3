"""Reading `tokenizer.json`: what the tokenizers library makes of it, sooner.

The library reads the tables of a byte-pair model out of one JSON document by way of a tree of all
its values: 0.3 s and 130 MB for 150,000 tokens, during which no other Python runs. It takes the
same tables as a dictionary and a list of pairs, which are here sooner.

Whatever is not written as the library itself writes it is left to the library.
"""

import re
from typing import Any

import orjson
import tokenizers

_MIN_SPLIT_BYTES = 2**20  # smaller ones are read in milliseconds
_VOCAB = re.compile(rb'"vocab"\s*:\s*(?=\{)')  # in no string: its quotes are escaped
_MERGES = re.compile(rb'\}\s*,\s*"merges"\s*:\s*\[')
_END = re.compile(rb"\]\s*\}\s*\}\s*\Z")  # of the merges, the model and the document
_END_BYTES = 64  # in which it stands
_BACKSLASH, _QUOTE = b"\x01", b"\x02"  # in place of escapes
_PRINTABLE = b"\x01\x02" + bytes(range(0x21, 0x100))  # what a token is made of, escapes replaced
_TOKEN_FIELDS = {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}
_OPTIONS = (  # of the model, beside its tables
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
)


def parse_tokenizer(definition: bytes) -> tokenizers.Tokenizer:
    """Make a tokenizer of the bytes of a tokenizer.json.

    Raises:
        Exception: It is broken; the library raises nothing more specific.
    """
    if len(definition) >= _MIN_SPLIT_BYTES:
        tokenizer = parse_split(definition)
        if tokenizer is not None:
            return tokenizer
    return tokenizers.Tokenizer.from_buffer(definition)


def parse_split(definition: bytes) -> tokenizers.Tokenizer | None:
    """Make a tokenizer of a byte-pair model and its tables apart; `None` if that cannot be."""
    vocab_at = _VOCAB.search(definition)
    merges_at = _MERGES.search(definition, vocab_at.end()) if vocab_at else None
    end_at = _END.search(definition, max(len(definition) - _END_BYTES, 0))
    if vocab_at is None or merges_at is None or end_at is None:
        return None
    empty = b"{" + definition[merges_at.start() : merges_at.end()] + definition[end_at.start() :]
    try:
        rest = orjson.loads(definition[: vocab_at.end()] + empty)
        vocab = orjson.loads(definition[vocab_at.end() : merges_at.start() + 1])
        merges = _read_pairs(definition[merges_at.end() : end_at.start()])
        return None if merges is None else _assemble(rest, vocab, merges)
    except Exception:  # noqa: BLE001 - the library's own; it says better what is wrong with the whole
        return None


def _read_pairs(merges: bytes) -> list[tuple[str, str]] | None:
    """Pairs of tokens, without the interpreter seeing each.

    What stands between two strings is the same everywhere, and is replaced as a whole.

    Args:
        merges: What stands between the brackets: arrays of two strings, or strings of two tokens
            with a space between.

    Returns:
        `None` if it is written in another way, or a token holds white space or an unusual escape.

    Raises:
        UnicodeDecodeError: It is not UTF-8.
    """
    if _BACKSLASH in merges or _QUOTE in merges:
        return None
    merges = merges.replace(rb"\\", _BACKSLASH).replace(rb"\"", _QUOTE)  # now quotes are ends
    parts = merges.split(b'"', 5)
    if len(parts) <= 5 or b"\\" in merges:
        return None
    opening, _, first_gap, _, second_gap, _ = parts
    end = merges.rindex(b'"')
    lines, closing = merges[len(opening) + 1 : end], merges[end + 1 :]
    match opening.strip(), first_gap.strip(), b"".join(second_gap.split()), closing.strip():
        case b"", b",", b",", b"":  # strings
            between, within = b'"%b"' % first_gap, b" "
        case b"[", b",", b"],[", b"]":
            between, within = b'"%b"' % second_gap, b'"%b"' % first_gap
        case _:
            return None
    num_pairs = lines.count(between) + 1
    lines = lines.replace(between, b"\n")
    if lines.count(within) != num_pairs:
        return None
    lines = lines.replace(within, b" ")
    gaps = lines.translate(None, _PRINTABLE)
    if gaps != b" \n" * (num_pairs - 1) + b" " or b'"' in lines:
        return None
    lines = lines.replace(b"\n", b" ").replace(_QUOTE, b'"').replace(_BACKSLASH, b"\\")
    tokens = iter(lines.decode().split(" "))
    return list(zip(tokens, tokens, strict=True))


def _assemble(
    rest: Any, vocab: dict[str, Any], merges: list[tuple[str, str]]
) -> tokenizers.Tokenizer | None:
    """Put the parts of a document together again.

    Args:
        rest: The document, its tables empty.
        vocab: Ids by spelling.
        merges: Pairs of spellings, the first to be merged first.

    Returns:
        `None` if the model is of another kind, an id is no number, or added tokens have other ids
        than they should.
    """
    model, added = rest["model"], rest.get("added_tokens", [])
    if model.get("type") != "BPE" or any(token.keys() != _TOKEN_FIELDS for token in added):
        return None
    rest["added_tokens"] = []
    tokenizer = tokenizers.Tokenizer.from_buffer(orjson.dumps(rest))
    options = {name: model[name] for name in _OPTIONS if model.get(name) is not None}
    if {*map(type, vocab.values())} != {int}:
        return None
    tokenizer.model = tokenizers.models.BPE(vocab, merges, **options)
    tokens = [{name: value for name, value in token.items() if name != "id"} for token in added]
    tokenizer.add_tokens([tokenizers.AddedToken(**token) for token in tokens])
    is_same = all(tokenizer.token_to_id(token["content"]) == token["id"] for token in added)
    return tokenizer if is_same else None

"""Bytes and text of ids: exact, incremental, and equal to whole decoding."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.errors import ConfigurationError
from provider_core.text.tokenizer import FolderTokenizer
from provider_core.text.vocabulary import Vocabulary
from tests.unit.text.tokenizer_folders import byte_fallback, byte_level, metaspace, served

BYTE_LEVEL = byte_level()
BYTE_FALLBACK = byte_fallback()
SERVED = {"byte_level": served(BYTE_LEVEL), "byte_fallback": served(BYTE_FALLBACK)}
TEXTS = [
    "hello world",
    "  two  spaces  ",
    "naïve café é",
    "你好 世界 안녕",
    "😀👩‍👩‍👧‍👦🇨🇭❤️",
    "مرحبا",
    "line\n\r\ttabs\u2028\x00",
]


def id_of(token: str) -> int:
    """The byte-level tokenizer's id of an added token."""
    token_id = BYTE_LEVEL.token_to_id(token)
    assert token_id is not None
    return token_id


def decode_in_steps(tokenizer: FolderTokenizer, ids: Sequence[int]) -> list[str]:
    """Every piece a decoder gives, the flush last."""
    decoder = tokenizer.make_decoder()
    return [*map(decoder.step, ids), decoder.flush()]


@given(ids=st.lists(st.integers(0, BYTE_LEVEL.get_vocab_size() - 1), max_size=40))
def test_byte_level_decoding_equals_the_library_on_any_ids(ids: list[int]) -> None:
    """Invalid UTF-8 and special ids included."""
    assert SERVED["byte_level"].decode(ids) == BYTE_LEVEL.decode(ids)


@pytest.mark.parametrize("family", SERVED)
@given(data=st.data())
def test_t10_steps_join_to_the_whole_decoding_of_any_ids(family: str, data: st.DataObject) -> None:
    """Whatever the ids are, streaming says what whole decoding says."""
    tokenizer = SERVED[family]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    assert "".join(decode_in_steps(tokenizer, ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("family", SERVED)
@given(text=st.text(max_size=40).filter(lambda text: "▁" not in text))  # a space to metaspace
def test_bug_08_no_piece_of_valid_text_has_a_replacement_character(family: str, text: str) -> None:
    """Characters that span ids appear whole, or not yet."""
    tokenizer = SERVED[family]
    ids = tokenizer.encode(text, allow_special=False)
    assert "".join(decode_in_steps(tokenizer, ids)) == text
    assert (
        not any("\ufffd" in piece for piece in decode_in_steps(tokenizer, ids)) or "\ufffd" in text
    )


@pytest.mark.parametrize("text", TEXTS)
def test_t10_a_stream_cut_anywhere_ends_in_at_most_one_replacement(text: str) -> None:
    """Cut after each id, the text is a prefix and the flush stands for the broken character."""
    tokenizer = SERVED["byte_level"]
    ids = tokenizer.encode(text, allow_special=False)
    for cut in range(len(ids) + 1):
        *pieces, tail = decode_in_steps(tokenizer, ids[:cut])
        assert text.startswith("".join(pieces))
        assert tail in {"", "\ufffd"}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("family", SERVED)
def test_bug_09_bytes_of_the_ids_join_to_the_bytes_of_the_text(family: str, text: str) -> None:
    """Never the bytes of a replacement character, also inside characters."""
    tokenizer = SERVED[family]
    ids = tokenizer.encode(text, allow_special=False)
    joined = b"".join(map(tokenizer.token_bytes, ids))
    assert joined.removeprefix(b" " if family == "byte_fallback" else b"") == text.encode()


def test_byte_tokens_are_single_bytes() -> None:
    """`<0xE2>` is the byte, and a token that only looks alike in another family is text."""
    tokenizer = SERVED["byte_fallback"]
    assert tokenizer.token_bytes(3 + 0xE2) == b"\xe2"


def test_special_ids_add_no_bytes_and_other_added_tokens_their_content() -> None:
    """What is never shown is empty, so that bytes join to the text."""
    tokenizer = SERVED["byte_level"]
    tool_call = id_of("<tool_call>")
    assert tokenizer.token_bytes(id_of("<|im_end|>")) == b""
    assert tokenizer.token_bytes(tool_call) == b"<tool_call>"


def test_bug_23_special_ids_are_never_shown() -> None:
    """Neither alone nor in the middle of a character."""
    tokenizer = SERVED["byte_level"]
    first, *rest = tokenizer.encode("é", allow_special=False)
    special = id_of("<|im_end|>")
    ids = [special, first, special, *rest, special]
    assert "".join(decode_in_steps(tokenizer, ids)) == tokenizer.decode(ids) == "é"


def test_ids_beyond_the_vocabulary_are_nothing() -> None:
    """Logits may be wider than the vocabulary; such an id must not end a stream."""
    tokenizer = SERVED["byte_level"]
    assert decode_in_steps(tokenizer, [tokenizer.vocab_size + 7]) == ["", ""]
    assert tokenizer.decode([tokenizer.vocab_size + 7]) == ""
    assert tokenizer.token_bytes(tokenizer.vocab_size + 7) == b""


@pytest.mark.parametrize("parser", [byte_fallback(), metaspace()])
def test_the_first_space_goes_only_where_the_text_begins(parser: object) -> None:
    """As the library strips it; after visible prompt text the space separates and stays."""
    tokenizer = served(parser)  # type: ignore[arg-type]
    ids = tokenizer.encode("hello the", allow_special=False)
    assert tokenizer.decode(ids) == "hello the"
    begun = tokenizer.make_decoder([1])
    continued = tokenizer.make_decoder([1, *ids])
    assert "".join(map(begun.step, ids)) == "hello the"
    assert "".join(map(continued.step, ids)) == " hello the"


def test_a_decoder_of_another_family_is_refused_at_load() -> None:
    """Inexact bytes would be worse than no start."""
    for decoder, message in (({"type": "WordPiece"}, "WordPiece"), (None, "not supported")):
        with pytest.raises(ConfigurationError, match=message):
            Vocabulary(
                {0: "a"}.get,
                lambda: {"a": 0},
                added_tokens={},
                special_ids=frozenset(),
                decoder=decoder,
            )


def test_the_whole_table_says_what_single_ids_say() -> None:
    """Whoever wants all ids at once gets the bytes that a stream gets id by id."""
    for parser in (BYTE_LEVEL, byte_fallback(), metaspace()):
        vocabulary = served(parser)._vocabulary
        size = len(vocabulary.token_bytes)
        assert vocabulary.token_bytes == [vocabulary.bytes_of(i) for i in range(size)]
        assert vocabulary.bytes_of(-1) == vocabulary.bytes_of(size) == b""


def test_loading_spells_no_token() -> None:
    """A vocabulary of 150,000 would take a tenth of a second of each start."""
    vocabulary = served(BYTE_LEVEL)._vocabulary
    assert "token_bytes" not in vars(vocabulary)
    assert not vocabulary.texts

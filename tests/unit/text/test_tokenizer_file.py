"""A tokenizer whose tables were read apart is the one that the library reads in one piece."""

import json
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer

from provider_core.text.tokenizer_file import parse_split, parse_tokenizer
from tests.unit.text.tokenizer_folders import byte_fallback, byte_level, metaspace

MAKERS = pytest.mark.parametrize("make", [byte_level, byte_fallback, metaspace])
Definition = dict[str, object]
SMALL: Definition = {
    "version": "1.0",
    "added_tokens": [
        {
            "id": 7,
            "special": True,
            "normalized": False,
            "lstrip": False,
            "rstrip": False,
            "single_word": False,
            "content": "<end>",
        }
    ],
    "model": {
        "type": "BPE",
        "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "ab": 4, "cd": 5, "e": 6},
        "merges": [["a", "b"], ["c", "d"]],
    },
}


def read_whole(definition: bytes) -> str:
    """What the library makes of a definition, spelled out."""
    return Tokenizer.from_buffer(definition).to_str()


def merges_as_strings(definition: bytes) -> Definition:
    """As the library wrote merges before version 0.20."""
    document = json.loads(definition)
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    assert isinstance(document, dict)
    return document


@MAKERS
def test_every_part_is_the_same(make: Callable[[], Tokenizer]) -> None:
    """Vocabulary, merges, options, added tokens, and all that stands around them."""
    for pretty in (False, True):
        definition = make().to_str(pretty=pretty).encode()
        split = parse_split(definition)
        assert split is not None
        assert split.to_str() == read_whole(definition)


@MAKERS
@pytest.mark.parametrize("indent", [None, 2, 4])
def test_merges_of_older_files(make: Callable[[], Tokenizer], indent: int | None) -> None:
    """One string for each pair, however the file is laid out."""
    document = merges_as_strings(make().to_str().encode())
    definition = json.dumps(document, indent=indent, ensure_ascii=False).encode()
    split = parse_split(definition)
    assert split is not None
    assert split.to_str() == read_whole(definition)


def test_quotation_marks_and_backslashes_are_tokens_like_others() -> None:
    """The two characters that JSON escapes, alone and in pairs."""
    document = {**json.loads(byte_level().to_str()), "added_tokens": []}
    add_merges(document, ['"', "\\"], ["\\", '"'], ["\\", "\\"], [",", '"'], ['"', ","], ["]", "["])
    for indent in (None, 2):
        definition = json.dumps(document, indent=indent, ensure_ascii=False).encode()
        split = parse_split(definition)
        assert split is not None
        whole = Tokenizer.from_buffer(definition)
        assert split.to_str() == whole.to_str()
        text = 'say "\\"\\\\ ,"", ][ "hello"'
        assert split.encode(text).ids == whole.encode(text).ids


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_tokens_that_look_like_what_stands_between_two(separators: tuple[str, str]) -> None:
    """They are read as they are, or left to the library, never misread."""
    document = {**json.loads(byte_level().to_str()), "added_tokens": []}
    pairs = (["]", ","], ["],", "["], ["],[", '"'], [",", "],["], ["],[", "],["], [",", ","])
    add_merges(document, *pairs)
    text = json.dumps(document, separators=separators, ensure_ascii=False)
    split = parse_split(text.encode())
    assert split is None or split.to_str() == read_whole(text.encode())


def add_merges(document: Definition, *pairs: list[str]) -> None:
    """More merges, with the tokens that they make."""
    model = document["model"]
    assert isinstance(model, dict)
    for pair in pairs:
        model["vocab"].setdefault("".join(pair), len(model["vocab"]) + 1000)
        model["merges"].append(pair)


def escape_everything(document: Definition) -> bytes:
    """The same document in ASCII."""
    return json.dumps(document).encode()


def add_token_with_space(document: Definition) -> bytes:
    """A merge that a line of merges.txt cannot say."""
    model = document["model"]
    assert isinstance(model, dict)
    model["vocab"] |= {" ": 9001, "e ": 9002}
    model["merges"].append(["e", " "])
    return json.dumps(document, ensure_ascii=False).encode()


def put_merges_first(document: Definition) -> bytes:
    """The model's keys in another order."""
    model = document["model"]
    assert isinstance(model, dict)
    document["model"] = dict(reversed(model.items()))
    return json.dumps(document, ensure_ascii=False).encode()


def mix_layouts(document: Definition) -> bytes:
    """White space in one place only."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    first, second = text.rsplit("],[", 1)
    return f"{first}], [{second}".encode()


@pytest.mark.parametrize(
    "write", [escape_everything, add_token_with_space, put_merges_first, mix_layouts]
)
def test_unusual_files_are_left_to_the_library(write: Callable[[Definition], bytes]) -> None:
    """They are read, not misread."""
    definition = write(json.loads(byte_level().to_str()))
    assert parse_split(definition) is None
    assert parse_tokenizer(definition).to_str() == read_whole(definition)


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ('"d"]]}}', '"d"],]}}'),
        ('"d"]]}}', '"d"], 17]}}'),
        ('"d"]]}}', '"d"] and more]}}'),
        ('"d"]]}}', '"d"]}}'),
        ('["c", "d"]', '["c d"]'),
        ('["c", "d"]', '["c"]'),
        ('["c", "d"]', '["c", "d", "e"]'),
        ('["c", "d"]', '["c d\n", "d"]'),
        ('["a", "b"]', '["a", "b\r"]'),
        ('["c", "d"]', '["\x01", "d"]'),
        ('"normalized": false, ', ""),
        ('"lstrip": false, ', ""),
    ],
)
def test_what_the_library_refuses_is_refused(written: str, instead: str) -> None:
    """Malformed merges, ids and added tokens are not made up for."""
    definition = json.dumps(SMALL, ensure_ascii=False)
    assert parse_split(definition.encode()) is not None
    assert written in definition
    assert parse_split(definition.replace(written, instead).encode()) is None


@pytest.mark.parametrize("token_id", ['"6"', "null", "true", "6.0", "-6", "4294967302"])
def test_ids_that_are_none_are_refused(token_id: str) -> None:
    """Python would take some of them for numbers."""
    definition = json.dumps({**SMALL, "added_tokens": []})
    assert parse_split(definition.encode()) is not None
    assert parse_split(definition.replace('"e": 6', f'"e": {token_id}').encode()) is None


def test_added_tokens_of_other_ids_are_left_to_the_library() -> None:
    """Whatever the library does about an id that is not the next free one."""
    definition = json.dumps(SMALL).replace('{"id": 7', '{"id": 8').encode()
    assert parse_split(definition) is None
    assert parse_tokenizer(definition).to_str() == read_whole(definition)


def test_a_merge_that_would_be_a_comment_is_one_like_others() -> None:
    """In `merges.txt` a line that begins with `#version` is passed over."""
    document = {**json.loads(json.dumps(SMALL)), "added_tokens": []}
    document["model"]["vocab"] |= {"#version": 7}
    add_merges(document, ["#version", "d"])
    definition = json.dumps(document).encode()
    split = parse_split(definition)
    assert split is not None
    assert split.to_str() == read_whole(definition)


def test_other_models_are_left_to_the_library() -> None:
    """Only byte pairs have two tables."""
    words = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
    document = {**json.loads(byte_level().to_str()), "added_tokens": [], "model": words}
    assert parse_split(json.dumps(document).encode()) is None


def test_a_large_file_is_read_either_way() -> None:
    """From one megabyte on the tables are read apart."""
    document = json.loads(byte_level().to_str())
    vocab = document["model"]["vocab"]
    vocab |= {f"Ġword{i}" * 4: i for i in range(len(vocab) + 1, 40_000)}
    definition = json.dumps(document, ensure_ascii=False).encode()
    assert len(definition) > 2**20
    assert parse_tokenizer(definition).to_str() == read_whole(definition)


@pytest.mark.parametrize("damage", [b'"merges"', b'"vocab"', b"]}}"])
def test_a_broken_file_is_refused_as_the_library_refuses_it(damage: bytes) -> None:
    """By the library's own exception."""
    definition = byte_level().to_str().encode().replace(damage, b"", 1)
    with pytest.raises(Exception, match="column"):
        parse_tokenizer(definition)

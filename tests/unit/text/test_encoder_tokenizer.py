"""Texts and pairs to an encoder's rows."""

import json
from pathlib import Path

import pytest

from provider_core.errors import ConfigurationError
from provider_core.text.encoder_tokenizer import EncoderTokenizer, load_encoder_tokenizer
from tests.encoder_folders import CLS, SEP, UNK, VOCABULARY, make_tokenizer

THE, CAT, SAT, QUERY, COLON = (VOCABULARY[word] for word in ("the", "cat", "sat", "query", ":"))


def test_a_text_stands_between_its_control_tokens() -> None:
    """As the folder's post-processor says."""
    [row] = EncoderTokenizer(make_tokenizer()).encode(["The cat"])
    assert row.token_ids.tolist() == [CLS, THE, CAT, SEP]
    assert row.token_type_ids is None


def test_pairs_tell_the_second_text_by_its_type() -> None:
    """One row for each document."""
    rows = EncoderTokenizer(make_tokenizer()).encode_pairs("the cat", ["sat", ""])
    assert rows[0].token_ids.tolist() == [CLS, THE, CAT, SEP, SAT, SEP]
    assert rows[0].token_type_ids is not None
    assert rows[0].token_type_ids.tolist() == [0, 0, 0, 0, 1, 1]
    assert rows[1].token_ids.tolist() == [CLS, THE, CAT, SEP, SEP]


def test_control_tokens_in_a_text_are_plain_text() -> None:
    """A document cannot end the query it is compared with."""
    [row] = EncoderTokenizer(make_tokenizer()).encode(["the [SEP] cat"])
    assert row.token_ids.tolist().count(SEP) == 1
    assert UNK in row.token_ids


def test_truncation_and_padding_of_the_folder_are_undone() -> None:
    """What is too long is refused elsewhere, never cut in silence."""
    parser = make_tokenizer()
    parser.enable_truncation(4)
    parser.enable_padding(length=10)
    [row] = EncoderTokenizer(parser).encode(["the cat sat on the mat"])
    assert len(row) == 8


def write(folder: Path, prompts: object, default: str | None = None, **sentence: object) -> Path:
    """Write a folder with a tokenizer and prompts."""
    make_tokenizer().save(str(folder / "tokenizer.json"))
    config = {"prompts": prompts, "default_prompt_name": default}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    (folder / "sentence_bert_config.json").write_text(json.dumps(sentence))
    return folder


def test_prompts_go_before_the_text(tmp_path: Path) -> None:
    """By the kind of text; a kind that the folder does not name has none."""
    tokenizer = load_encoder_tokenizer(write(tmp_path, {"query": "query: ", "document": ""}))
    [query], [document], [plain] = (
        tokenizer.encode(["cat"], kind=kind) for kind in ("query", "document", None)
    )
    assert query.token_ids.tolist() == [CLS, QUERY, COLON, CAT, SEP]
    assert document.token_ids.tolist() == plain.token_ids.tolist() == [CLS, CAT, SEP]


def test_the_default_prompt_is_for_texts_of_no_kind(tmp_path: Path) -> None:
    """As Sentence Transformers has it."""
    tokenizer = load_encoder_tokenizer(write(tmp_path, {"query": "query: "}, "query"))
    [row] = tokenizer.encode(["cat"])
    assert row.token_ids.tolist() == [CLS, QUERY, COLON, CAT, SEP]


@pytest.mark.parametrize(
    ("input_type", "kind"),
    [
        ("query", "query"),
        ("search_query", "query"),
        ("document", "passage"),
        ("search_document", "passage"),
        ("passage", "passage"),
    ],
)
def test_clients_names_of_kinds_find_the_folders(
    tmp_path: Path, input_type: str, kind: str
) -> None:
    """OpenRouter's clients write `search_query`, folders `query`."""
    tokenizer = load_encoder_tokenizer(write(tmp_path, {"query": "q", "passage": "p"}))
    assert tokenizer.find_kind(input_type) == kind


def test_a_kind_nobody_knows_is_found_nowhere(tmp_path: Path) -> None:
    """The caller says what there is."""
    tokenizer = load_encoder_tokenizer(write(tmp_path, {"query": "q"}))
    assert tokenizer.find_kind("poem") is None
    assert tokenizer.find_kind("document") == "document"


def test_a_folder_may_ask_for_small_letters(tmp_path: Path) -> None:
    """Before anything else happens to the text."""
    parser = make_tokenizer()
    parser.normalizer = None
    parser.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    [row] = load_encoder_tokenizer(tmp_path).encode(["CAT"])
    assert row.token_ids.tolist() == [CLS, CAT, SEP]


@pytest.mark.parametrize("prompts", [["query: "], {"query": 1}])
def test_broken_prompts_stop_the_start(tmp_path: Path, prompts: object) -> None:
    """With the file's name."""
    with pytest.raises(ConfigurationError, match="config_sentence_transformers"):
        load_encoder_tokenizer(write(tmp_path, prompts))


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    """Before anything is served."""
    with pytest.raises(ConfigurationError, match=r"no tokenizer\.json"):
        load_encoder_tokenizer(tmp_path)

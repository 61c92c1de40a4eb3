"""What is read from an encoder's folder, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from provider_core import ConfigurationError
from provider_onnxruntime.encoder_folder import EncoderFile, find_encoder
from provider_onnxruntime.onnx_file import read_onnx_file
from provider_onnxruntime.settings import OnnxRuntimeSettings
from tests.encoder_folders import make_encoder, write_encoder


def read(folder: Path, options: dict[str, Any] | None = None, **written: Any) -> EncoderFile:
    """Write a folder and read it."""
    path = write_encoder(folder, make_encoder(), **written) / "model.onnx"
    settings = OnnxRuntimeSettings.model_validate(options or {})
    found = find_encoder(folder, path, read_onnx_file(path), settings)
    assert found is not None
    return found


def test_a_folder_of_sentence_transformers_says_all(tmp_path: Path) -> None:
    """Pooling, normalisation and length."""
    files = {"sentence_bert_config.json": {"max_seq_length": 16}}
    file = read(tmp_path, files=files)
    assert (file.kind, file.pooling, file.normalizes) == ("tokens", "mean", True)
    assert (file.max_model_len, file.pad_token_id, file.vocab_size) == (16, 0, 16)
    assert file.precision == "fp32"


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "max"}, "max"),
    ],
)
def test_pooling_is_the_folders(tmp_path: Path, pooling: dict[str, Any], mode: str) -> None:
    """In the old form of flags, or by name."""
    assert read(tmp_path, pooling=pooling).pooling == mode


def test_options_win(tmp_path: Path) -> None:
    """What the provider's file says is meant."""
    options = {"pooling": "cls", "normalize": False, "matryoshka_dimensions": [4, 2]}
    file = read(tmp_path, options)
    assert (file.pooling, file.normalizes, file.shorter_sizes) == ("cls", False, (2, 4))


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        ({}, ()),
        ({"is_matryoshka": True}, None),
        ({"matryoshka_dimensions": [4, 2]}, (2, 4)),
    ],
)
def test_shorter_vectors_need_a_model_trained_for_them(
    tmp_path: Path, config: dict[str, Any], sizes: tuple[int, ...] | None
) -> None:
    """Its config.json says so."""
    assert read(tmp_path, config=config).shorter_sizes == sizes


def test_roberta_has_fewer_positions_than_it_says(tmp_path: Path) -> None:
    """Its first position is one behind the padding's id."""
    config = {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    assert read(tmp_path, config=config).max_model_len == 512


def test_the_padding_may_be_the_tokenizers(tmp_path: Path) -> None:
    """Where config.json says nothing."""
    files = {"tokenizer.json": {"padding": {"pad_id": 3}}}
    assert read(tmp_path, config={"pad_token_id": None}, files=files).pad_token_id == 3


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        ({}, "sigmoid"),
        (
            {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
            "identity",
        ),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
            "sigmoid",
        ),
    ],
)
def test_scores_have_the_configs_activation(
    tmp_path: Path, config: dict[str, Any], activation: str
) -> None:
    """In its old and its new place."""
    file = read(tmp_path, config=config, output="logits")
    assert (file.kind, file.activation) == ("scores", activation)


def test_a_graph_that_pools_is_believed(tmp_path: Path) -> None:
    """Whatever other modules the folder lists."""
    modules = ("Transformer", "Pooling", "Dense", "Normalize")
    file = read(tmp_path, output="sentence_embedding", modules=modules)
    assert (file.kind, file.pooling, file.normalizes) == ("vectors", None, True)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"modules": ("Transformer", "Pooling", "Dense")}, "Dense"),
        ({"pooling": {"pooling_mode_mean_tokens": False}}, "option pooling"),
        ({"pooling": {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}}, "one"),
        ({"config": {"matryoshka_dimensions": ["4"]}}, "matryoshka_dimensions"),
        (
            {"output": "logits", "config": {"sentence_transformers": {"activation_fn": "x.Tanh"}}},
            "Tanh",
        ),
        ({"files": {"1_Pooling/config.json": []}}, "not a JSON object"),
        ({"files": {"modules.json": {"type": 1}}}, "not a list of modules"),
        ({"inputs": ("input_ids", "attention_mask", "bbox")}, "bbox"),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    tmp_path: Path, written: dict[str, Any], message: str
) -> None:
    """At the start, not with wrong vectors later."""
    with pytest.raises(ConfigurationError, match=message):
        read(tmp_path, **written)

"""Shapes without weights: what they are made of, and that a server could take them."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer

from provider_core import ConfigurationError
from provider_export.decoder_config import parse_config
from provider_export.export import count_weights, export_decoder
from provider_export.random_source import RandomShape, RandomWeights, make_tokenizer
from provider_export.shapes import SHAPES
from tests.tiny_checkpoints import write_checkpoint

MILLION = 1_000_000
PUBLISHED_MILLIONS = {  # all parameters, norms and biases included, as the model cards have it
    "qwen2.5-0.5b": 494.0,
    "qwen2.5-1.5b": 1543.7,
    "llama-3.2-1b": 1235.8,
    "llama-3.1-8b": 8030.3,
}


@pytest.fixture
def tiny_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A shape of milliseconds under a name of its own."""
    folder = write_checkpoint(tmp_path / "tiny", "qwen2", vocab_size=10_000, eos_token_id=9_000)
    config = json.loads((folder / "config.json").read_text()) | {"bos_token_id": 8_999}
    monkeypatch.setattr("provider_export.random_source.SHAPES", {**SHAPES, "tiny": config})
    return "tiny"


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_have_the_published_number_of_weights(name: str) -> None:
    """To the thousandth, which leaves room for norms and biases."""
    config = parse_config(SHAPES[name])
    assert count_weights(RandomShape(name)) / MILLION == pytest.approx(
        PUBLISHED_MILLIONS[name], rel=1e-3
    )
    assert config.num_layers == SHAPES[name]["num_hidden_layers"]


def test_weights_depend_on_their_names_and_the_seed() -> None:
    """Not on the order they are read in."""
    weights, other = (RandomWeights(is_tied=False, has_qkv_bias=True, seed=seed) for seed in (0, 1))
    matrix = weights.read("lm_head.weight", (300, 200))
    assert matrix.dtype == np.float32
    assert matrix.std() == pytest.approx(0.02, rel=0.02)
    weights.read("model.embed_tokens.weight", (300, 200))
    np.testing.assert_array_equal(weights.read("lm_head.weight", (300, 200)), matrix)
    assert not np.array_equal(weights.read("model.embed_tokens.weight", (300, 200)), matrix)
    assert not np.array_equal(other.read("lm_head.weight", (300, 200)), matrix)
    assert (weights.read("model.layers.0.input_layernorm.weight", (8,)) == 1).all()
    assert (weights.read("model.norm.weight", (8,)) == 1).all()


def test_what_a_shape_does_not_have_is_missing() -> None:
    """A tied head, and biases beyond Qwen2's."""
    weights = RandomWeights(is_tied=True, has_qkv_bias=False)
    for name in ("lm_head.weight", "model.layers.0.self_attn.q_proj.bias"):
        assert name not in weights
        with pytest.raises(ConfigurationError, match="no tensor"):
            weights.read(name, (4,))
    assert "model.layers.0.self_attn.o_proj.bias" not in RandomWeights(
        is_tied=False, has_qkv_bias=True
    )


def test_every_id_is_a_text_and_text_comes_back() -> None:
    """Special ids in between included; the vocabulary is as long as was asked for."""
    tokenizer = make_tokenizer(151_936, {"<|im_end|>": 151_645, "<|endoftext|>": 151_643})
    assert tokenizer.get_vocab_size() == 151_936
    texts = tokenizer.decode_batch([[i] for i in range(151_936)], skip_special_tokens=False)
    assert all(texts)
    text = "def résumé():\n    return '漢字 ~ 42 %'<|im_end|>"
    encoding = tokenizer.encode(text)
    assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == text
    assert encoding.ids[-1] == 151_645
    assert len(tokenizer.encode("the rain in the tree").ids) < 10


def test_a_random_export_is_a_whole_model_folder(tiny_shape: str, tmp_path: Path) -> None:
    """Configuration, tokenizer with a template, and the same weights every time."""
    source = RandomShape(tiny_shape, num_layers=1)
    model_file = export_decoder(source, tmp_path / "out", precision="int4", max_model_len=100)
    again = export_decoder(source, tmp_path / "again", precision="int4", max_model_len=100)
    assert again.read_bytes() == model_file.read_bytes()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["max_position_embeddings"]) == (1, 100)
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 10_000
    assert tokenizer.token_to_id("<|startoftext|>") == 8_999
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert [tokenizer.id_to_token(i) for i in generation["eos_token_id"]] == [
        "<|im_end|>",
        "<|endoftext|>",
    ]
    assert len(onnx.load(model_file).graph.initializer) > 10


def test_unknown_shapes_are_refused() -> None:
    """By their names."""
    with pytest.raises(ConfigurationError, match=r"'gpt-5' is not one of qwen2\.5-0\.5b, "):
        RandomShape("gpt-5")

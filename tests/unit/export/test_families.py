"""What each family's graph is made of; its numbers are compared where a runner runs it."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import typer
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from provider_core import ConfigurationError
from provider_export import register_commands
from provider_export.export import export_decoder
from tests.tiny_checkpoints import FAMILIES, write_checkpoint, write_multimodal

LONG = {"max_position_embeddings": 256, "original_max_position_embeddings": 64}
TARGETS: tuple[Literal["cpu", "tensorrt"], ...] = ("cpu", "tensorrt")


def attributes(model: onnx.ModelProto, op_type: str) -> list[dict[str, Any]]:
    """Of each node of this type."""
    return [
        {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        for node in model.graph.node
        if node.op_type == op_type
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_tensorrt_graphs_use_what_its_parser_takes(family: str, tmp_path: Path) -> None:
    """Standard operators of opset 24, and no Attention with a softcap, which TensorRT refuses."""
    source = write_checkpoint(tmp_path / "source", family)
    model = onnx.load(export_decoder(source, tmp_path / "out", target="tensorrt"))
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 24)]
    onnx.checker.check_model(model, full_check=True)
    assert all("softcap" not in found for found in attributes(model, "Attention"))


def test_windows_and_softcaps_reach_the_kernel(tmp_path: Path) -> None:
    """Gemma 2 has both; its layers take turns."""
    source = write_checkpoint(tmp_path / "source", "gemma2")
    found = attributes(onnx.load(export_decoder(source, tmp_path / "out")), "GroupQueryAttention")
    assert [node["local_window_size"] for node in found] == [12, -1, 12]
    assert {node["softcap"] for node in found} == {3.0}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"head_dim": 24}, "head_dim of 24 is no multiple of 16"),
        ({"partial_rotary_factor": 0.25}, "rotated part of 8 is no multiple of 16"),
    ],
)
def test_heads_without_a_kernel_are_refused(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    """At the export, not at the first request; the other target takes them."""
    source = write_checkpoint(tmp_path / "source", "phi3", **changes)
    with pytest.raises(ConfigurationError, match=complaint):
        export_decoder(source, tmp_path / "out")
    export_decoder(source, tmp_path / "out", target="tensorrt")


@pytest.mark.parametrize("prefix", ["language_model.model", "model.language_model"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_multimodal_checkpoint_gives_its_text_decoder(
    tmp_path: Path, prefix: str, target: Literal["cpu", "tensorrt"]
) -> None:
    """The same graph and weights as the text checkpoint it was wrapped around."""
    text = write_checkpoint(tmp_path / "text", "gemma3_text")
    wrapped = write_multimodal(text, tmp_path / "wrapped", prefix)
    expected = export_decoder(text, tmp_path / "text_out", target=target).read_bytes()
    assert export_decoder(wrapped, tmp_path / "out", target=target).read_bytes() == expected


def test_the_length_is_written_beside_the_model(tmp_path: Path) -> None:
    """A server reads it there; nested configurations get it where the decoder is described."""
    text = write_checkpoint(tmp_path / "text", "gemma3_text")
    wrapped = write_multimodal(text, tmp_path / "wrapped", "language_model.model")
    for source, out, expected in (
        (text, tmp_path / "whole", 512),
        (text, tmp_path / "short", 64),
        (wrapped, tmp_path / "wrapped_short", 64),
    ):
        export_decoder(source, out, max_model_len=expected)
        config = json.loads((out / "config.json").read_text())
        assert config.get("text_config", config)["max_position_embeddings"] == expected


def test_the_command_says_which_longrope_it_took(tmp_path: Path) -> None:
    """Because it is right for texts of one kind of length."""
    scaling = {"type": "su", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    source = write_checkpoint(tmp_path / "source", "phi3", rope_scaling=scaling, **LONG)
    app = typer.Typer()
    app.callback()(lambda: None)
    register_commands(app)
    for options, expected in (([], "long_factor"), (["--max-model-len", "64"], "short_factor")):
        arguments = ["export", str(source), str(tmp_path / expected), *options]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert f"built with {expected} for texts of up to" in result.output


def test_an_export_in_place_keeps_its_configuration(tmp_path: Path) -> None:
    """A length of its own would change the source."""
    source = write_checkpoint(tmp_path)
    before = (source / "config.json").read_bytes()
    with pytest.raises(ConfigurationError, match="an output folder of its own"):
        export_decoder(source, source, max_model_len=64)
    export_decoder(source, source)
    assert (source / "config.json").read_bytes() == before


def test_a_bias_that_the_configuration_denies_is_refused(tmp_path: Path) -> None:
    """It would be lost in silence."""
    source = write_checkpoint(tmp_path / "source", "mistral")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.self_attn.k_proj.bias"] = np.ones(32, np.float32)
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(ConfigurationError, match=r"layers\.1\.self_attn\.k_proj\.bias"):
        export_decoder(source, tmp_path / "out")


def test_a_bias_that_the_configuration_promises_must_be_there(tmp_path: Path) -> None:
    """`mlp_bias` without the tensors."""
    source = write_checkpoint(tmp_path / "source", "llama")
    config = json.loads((source / "config.json").read_text()) | {"mlp_bias": True}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ConfigurationError, match=r"no tensor model\.layers\.0\.mlp\.gate_proj\.bias"
    ):
        export_decoder(source, tmp_path / "out")

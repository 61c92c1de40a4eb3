"""What layers compute in, where it is not float32: graphs for TensorRT in half precision."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto
from safetensors.numpy import load_file, save_file

from provider_core import ConfigurationError
from provider_export.export import Activations, Precision, export_decoder
from tests.reference_decoder import ReferenceDecoder
from tests.stored_weights import write_stored
from tests.tiny_checkpoints import FAMILIES, write_checkpoint

PROMPT = [3, 14, 15, 92, 65]
ROTATIONS = ("rotation", "cos_cache", "sin_cache")
TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def run(path: Path, dtype: str) -> npt.NDArray[np.float32]:
    """Logits of every position of `PROMPT`, by ONNX Runtime, which has float16 but not bfloat16."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options)
    feeds: dict[str, npt.NDArray[Any]] = {
        "input_ids": np.array([PROMPT]),
        "position_ids": np.arange(len(PROMPT))[np.newaxis],
        "write_indices": np.zeros(1, np.int64),
        "num_logits_to_keep": np.array(0),
    }
    for value in session.get_inputs():
        if value.name.startswith("past"):
            feeds[value.name] = np.zeros((1, value.shape[1], 16, value.shape[3]), dtype)
    logits: npt.NDArray[np.float32] = session.run(["logits"], feeds)[0][0]
    return logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["fp16", "fp8", "int8"])
def test_half_precision_is_near_the_reference(
    family: str, precision: Precision, tmp_path: Path
) -> None:
    """By its rounding, in every family, whatever the weights are stored as; logits are float32."""
    source = write_checkpoint(tmp_path / "source", family)
    path = export_decoder(
        source, tmp_path / "out", target="tensorrt", precision=precision, activations="fp16"
    )
    stored = write_stored(source, tmp_path / "stored", "tensorrt", precision, 32)
    expected = ReferenceDecoder(stored).logits(PROMPT)

    found = run(path, "float16")

    assert found.dtype == np.float32
    error = np.sqrt(np.square(found - expected).mean() / np.square(expected).mean())
    assert 1e-5 < error < 0.01


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("activations", TYPES)
def test_every_layer_computes_in_it(family: str, activations: Activations, tmp_path: Path) -> None:
    """Caches too; float32 are the rotations' tables before they are rounded, and the logits."""
    source = write_checkpoint(tmp_path / "source", family)
    path = export_decoder(
        source, tmp_path / "out", target="tensorrt", precision=activations, activations=activations
    )

    model = onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True)

    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    floats = {
        name
        for node in graph.node
        for name in node.output
        if types.get(name) == TensorProto.FLOAT and not name.startswith(ROTATIONS)
    }
    assert floats == {"logits"}
    for value in graph.input:
        if value.name.startswith("past"):
            assert value.type.tensor_type.elem_type == TYPES[activations]


def test_bfloat16_is_stored_as_the_checkpoint_has_it(tmp_path: Path) -> None:
    """Bit for bit: most published weights are bfloat16."""
    import ml_dtypes  # noqa: PLC0415 - registers bfloat16 with numpy

    source = write_checkpoint(tmp_path / "source", "llama")
    tensors = load_file(source / "model.safetensors")
    halved = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()}
    save_file(halved, source / "model.safetensors")

    path = export_decoder(
        source, tmp_path / "out", target="tensorrt", precision="bf16", activations="bf16"
    )

    stored = {weight.name: weight for weight in onnx.load(path).graph.initializer}
    weight = stored["layers.0.mlp.up.weight"]
    assert weight.data_type == TensorProto.BFLOAT16
    expected = halved["model.layers.0.mlp.up_proj.weight"].T.tobytes()
    assert weight.raw_data == expected


def test_the_other_target_has_float32_only(tmp_path: Path) -> None:
    """ONNX Runtime's CPU kernels compute in it."""
    source = write_checkpoint(tmp_path / "source")

    with pytest.raises(ConfigurationError, match="target cpu computes in fp32 only, not in bf16"):
        export_decoder(source, tmp_path / "out", activations="bf16")


def test_float8_is_for_tensorrt(tmp_path: Path) -> None:
    """ONNX Runtime would only take more time with it than with int8."""
    source = write_checkpoint(tmp_path / "source")

    with pytest.raises(ConfigurationError, match="fp8 is for target tensorrt"):
        export_decoder(source, tmp_path / "out", precision="fp8")


def test_numbers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """They would be infinite; bfloat16 holds them."""
    source = write_checkpoint(tmp_path / "source", "llama")
    tensors = load_file(source / "model.safetensors")
    tensors["model.norm.weight"][3] = 1e6
    save_file(tensors, source / "model.safetensors")

    with pytest.raises(ConfigurationError, match=r"model\.norm\.weight does not fit into float16"):
        export_decoder(source, tmp_path / "out", target="tensorrt", activations="fp16")
    export_decoder(source, tmp_path / "out", target="tensorrt", activations="bf16")

"""Exports in every precision against the reference decoder on the weights that were stored."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from provider_core import ConfigurationError
from provider_export import export as export_module
from provider_export.export import DATA_FILE, MODEL_FILE, Precision, TargetName, export_decoder
from tests.reference_decoder import ReferenceDecoder
from tests.stored_weights import Matrix, write_stored
from tests.tiny_checkpoints import write_checkpoint

PROMPT = [3, 14, 15, 92, 65]


def run(model_file: Path, *, is_optimised: bool) -> Matrix:
    """Logits of every position of `PROMPT`, `[len(PROMPT), vocabulary]`, by ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not is_optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(model_file), options)
    length = len(PROMPT)
    feeds: dict[str, npt.NDArray[Any]] = {
        "input_ids": np.array([PROMPT]),
        "num_logits_to_keep": np.array(0),
        "seqlens_k": np.array([length - 1], np.int32),
        "total_sequence_length": np.array(length, np.int32),
        "position_ids": np.arange(length)[np.newaxis],
        "write_indices": np.zeros(1, np.int64),
    }
    names = [node.name for node in session.get_inputs()]
    caches = {name: np.zeros((1, 2, 16, 16), np.float32) for name in names if name not in feeds}
    logits: Matrix = session.run(["logits"], {name: (feeds | caches)[name] for name in names})[0][0]
    return logits


def relative_error(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Root-mean-square difference over root-mean-square."""
    return float(np.sqrt(np.square(found - expected).mean() / np.square(expected).mean()))


@pytest.fixture(params=["qwen2", "llama"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tied checkpoint with biases, and an untied one without; blocks do not divide 48 inputs."""
    return write_checkpoint(tmp_path / "source", request.param)


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
@pytest.mark.parametrize(
    ("precision", "block_size", "tolerance"),
    [
        ("fp16", 32, 0.01),
        ("bf16", 32, 0.02),
        ("int8", 32, 0.05),
        ("hybrid", 32, 0.05),
        ("int4", 32, 0.7),
    ],
)
def test_an_export_computes_with_the_weights_it_stores(
    source: Path,
    tmp_path: Path,
    target: TargetName,
    precision: Precision,
    block_size: int,
    tolerance: float,
) -> None:
    """Exactly as written, closely as ONNX Runtime fuses it, and near the checkpoint."""
    model_file = export_decoder(
        source, tmp_path / "out", target=target, precision=precision, block_size=block_size
    )
    stored = write_stored(source, tmp_path / "stored", target, precision, block_size)
    expected = ReferenceDecoder(stored).logits(PROMPT)
    assert relative_error(run(model_file, is_optimised=False), expected) < 1e-5
    assert relative_error(run(model_file, is_optimised=True), expected) < 0.05
    true = ReferenceDecoder(source).logits(PROMPT)
    assert 1e-6 < relative_error(expected, true) < tolerance


@pytest.mark.parametrize("block_size", [16, 64, 128])
def test_any_block_size(tmp_path: Path, block_size: int) -> None:
    """Longer than the inputs too."""
    source = write_checkpoint(tmp_path / "source")
    model_file = export_decoder(source, tmp_path / "out", precision="int4", block_size=block_size)
    stored = write_stored(source, tmp_path / "stored", "cpu", "int4", block_size)
    expected = ReferenceDecoder(stored).logits(PROMPT)
    assert relative_error(run(model_file, is_optimised=False), expected) < 1e-5
    properties = {prop.key: prop.value for prop in onnx.load(model_file).metadata_props}
    assert properties == {"provider.precision": "int4", "provider.block_size": str(block_size)}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "hybrid"])
def test_the_model_says_its_precision(tmp_path: Path, precision: Precision) -> None:
    """In its metadata, where backends look."""
    source = write_checkpoint(tmp_path)
    model = onnx.load(export_decoder(source, source, precision=precision))
    assert {prop.key: prop.value for prop in model.metadata_props} == {
        "provider.precision": precision
    }


@pytest.mark.parametrize("block_size", [0, -32, 8, 48])
def test_blocks_that_no_kernel_takes_are_refused(tmp_path: Path, block_size: int) -> None:
    """Before anything is read or written."""
    with pytest.raises(ConfigurationError, match=f"block size {block_size} is not a power of two"):
        export_decoder(tmp_path / "none", tmp_path / "out", block_size=block_size)


def test_quantised_tables_are_stored_once(tmp_path: Path) -> None:
    """A tied head reads the embedding's table."""
    source = write_checkpoint(tmp_path / "source", vocab_size=20_000, num_hidden_layers=1)
    num_weights = sum(tensor.size for tensor in load_file(source / "model.safetensors").values())
    int8 = export_decoder(source, tmp_path / "int8", precision="int8")
    assert int8.stat().st_size < num_weights + 4 * 20_000 + 30_000  # a scale for each row
    int4 = export_decoder(source, tmp_path / "int4", precision="int4")
    blocks_per_row = 2  # of 32 and 16 inputs
    assert int4.stat().st_size < num_weights / 2 + 4 * blocks_per_row * 20_000 + 30_000


def test_quantised_tensorrt_graphs_are_standard(source: Path, tmp_path: Path) -> None:
    """No vendor operator, and onnx's own checker agrees."""
    for precision in ("int4", "int8"):
        model = onnx.load(
            export_decoder(source, tmp_path / precision, target="tensorrt", precision=precision)
        )
        assert {opset.domain for opset in model.opset_import} == {""}
        onnx.checker.check_model(model, full_check=True)


def test_large_weights_go_beside_the_model(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tensors, each at a page of its own, but for small ones."""
    whole = onnx.load(export_decoder(source, tmp_path / "whole", precision="int4"))
    monkeypatch.setattr(export_module, "MAX_SINGLE_FILE_BYTES", 0)
    model_file = export_decoder(source, tmp_path / "apart", precision="int4")
    skeleton = onnx.load(model_file, load_external_data=False)
    outside = [
        t for t in skeleton.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL
    ]
    assert outside
    for tensor in outside:
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert place["location"] == DATA_FILE
        assert int(place["offset"]) % 4096 == 0
    apart = onnx.load(model_file)
    for one, other in zip(whole.graph.initializer, apart.graph.initializer, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other))
    assert np.array_equal(
        run(model_file, is_optimised=True), run(tmp_path / "whole" / MODEL_FILE, is_optimised=True)
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_memory_stays_near_the_largest_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    """Whatever the number of layers: one tensor as float32, its stored copy, and a part."""
    monkeypatch.setattr(export_module, "MAX_SINGLE_FILE_BYTES", 0)
    monkeypatch.setattr("provider_export.external_data.PART_BYTES", 2**18)
    source = write_checkpoint(
        tmp_path / "source",
        "llama",
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=6,
    )
    largest = 4 * 4096 * 512
    total = (source / "model.safetensors").stat().st_size
    assert total > 5 * largest
    export_decoder(source, tmp_path / "warm", precision=precision)  # imports, caches
    tracemalloc.start()
    try:
        export_decoder(source, tmp_path / "out", precision=precision)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.7 * largest


def test_a_failed_export_leaves_nothing(source: Path, tmp_path: Path) -> None:
    """Neither a folder nor a change in one, though most weights had been written."""
    good = export_decoder(source, tmp_path / "old").read_bytes()
    tensors = load_file(source / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, source / "model.safetensors")
    before = sorted(tmp_path.rglob("*"))
    for out in (tmp_path / "new", tmp_path / "old"):
        with pytest.raises(ConfigurationError, match=r"no tensor model\.norm\.weight"):
            export_decoder(source, out)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "old" / MODEL_FILE).read_bytes() == good


def test_an_export_over_another_leaves_nothing_of_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights beside an earlier model go with it; files of others stay."""
    out = tmp_path / "out"
    with monkeypatch.context() as context:
        context.setattr(export_module, "MAX_SINGLE_FILE_BYTES", 0)
        export_decoder(source, out)
    (out / "notes.txt").write_text("kept")
    expected = export_decoder(source, tmp_path / "fresh").read_bytes()
    assert export_decoder(source, out).read_bytes() == expected
    assert {path.name for path in out.iterdir()} == {MODEL_FILE, "config.json", "notes.txt"}


def test_weights_are_reported_as_they_are_read(source: Path, tmp_path: Path) -> None:
    """Matrices, norms and biases, each with its size."""
    sizes: list[int] = []
    export_decoder(source, tmp_path / "out", on_weights=sizes.append)
    tensors = load_file(source / "model.safetensors")
    assert sorted(sizes) == sorted(tensor.size for tensor in tensors.values())
    matrices = sum(tensor.size for tensor in tensors.values() if tensor.ndim == 2)
    assert export_module.count_weights(source) == matrices
    assert json.loads((tmp_path / "out" / "config.json").read_text())["hidden_size"] == 48

"""What engines are built of: which files are taken, and what is written into their graphs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

from provider_core import ConfigurationError
from provider_export import export as export_module
from provider_export.export import export_decoder
from provider_tensorrt.artefact import EngineLimits
from provider_tensorrt.builder import parse_decoder
from provider_tensorrt.decoder_graph import WINDOW, fit_decoder, read_decoder
from provider_tensorrt.host_device import HostDevice
from provider_tensorrt.library import find_library
from tests.decoder_variants import GrowingTarget, write_variant
from tests.tiny_checkpoints import FAMILIES, write_checkpoint

LENGTH = 32


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A random checkpoint of two layers."""
    return write_checkpoint(tmp_path / "source")


def run(model: bytes, lengths: list[int], window: int | None) -> dict[str, npt.NDArray[Any]]:
    """One decode step of rows that hold so many tokens, of caches full of numbers."""
    session = ort.InferenceSession(model)
    rng = np.random.default_rng(3)
    num_rows = len(lengths)
    feeds: dict[str, npt.NDArray[Any]] = {
        "input_ids": np.arange(num_rows)[:, np.newaxis],
        "position_ids": np.array(lengths)[:, np.newaxis],
        "write_indices": np.array(lengths),
        "num_logits_to_keep": np.array(1),
    }
    if window is not None:
        feeds[WINDOW] = np.zeros(window, np.int64)
    for value in session.get_inputs():
        if value.name.startswith("past"):
            shape = (num_rows, value.shape[1], LENGTH, value.shape[3])
            feeds[value.name] = rng.normal(size=shape).astype(np.float32)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_window_changes_no_bit(family: str, tmp_path: Path) -> None:
    """Positions beyond the longest row are masked anyhow; caches come back whole."""
    source = write_checkpoint(tmp_path / "source", family)
    path = export_decoder(source, tmp_path / "model", target="tensorrt")
    decoder = read_decoder(path.parent)
    lengths = [0, 5, 13]

    expected = run(path.read_bytes(), lengths, None)
    fitted = fit_decoder(decoder, LENGTH).SerializeToString()

    for window in (14, LENGTH):
        found = run(fitted, lengths, window)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_caches_have_one_length(source: Path, tmp_path: Path) -> None:
    """TensorRT's cache update takes no other; the exported graph stays as it was."""
    path = export_decoder(source, tmp_path / "model", target="tensorrt")
    decoder = read_decoder(path.parent)

    model = fit_decoder(decoder, LENGTH)

    onnx.checker.check_model(model, full_check=True)
    for value in (*model.graph.input, *model.graph.output):
        if value.name.startswith(("past", "present")):
            assert value.type.tensor_type.shape.dim[2].dim_value == LENGTH
    assert decoder.model.SerializeToString() == read_decoder(path.parent).model.SerializeToString()


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("fp32", "fp32"), ("fp16", "fp16"), ("int8", "int8"), ("hybrid", "int8"), ("int4", "int4")],
)
def test_the_precision_is_that_of_the_stored_weights(
    source: Path, tmp_path: Path, precision: Any, expected: str
) -> None:
    """As listings name it; an engine runs hybrid weights as what they are."""
    path = export_decoder(source, tmp_path / "model", target="tensorrt", precision=precision)
    model = onnx.load(path)
    assert read_decoder(path.parent).precision == expected

    del model.metadata_props[:]  # of another exporter
    onnx.save(model, path)
    if precision == "fp32":
        assert read_decoder(path.parent).precision == expected


def test_other_conventions_are_sent_to_the_exporter(source: Path, tmp_path: Path) -> None:
    """With the command that makes the right one."""
    export_decoder(source, tmp_path / "genai", target="cpu")
    write_variant(source, tmp_path / "optimum", GrowingTarget)
    complaints = {
        "genai": r"has operators that TensorRT lacks, such as com\.microsoft\.",
        "optimum": "keeps its cache in the optimum convention",
        "nothing": "has no model.onnx; make one",
    }
    for name, complaint in complaints.items():
        with pytest.raises(ConfigurationError, match=complaint) as caught:
            read_decoder(tmp_path / name)
        assert "provider export SOURCE OUT --target tensorrt" in caught.value.message


def test_a_longer_cache_than_the_tables_is_refused(source: Path, tmp_path: Path) -> None:
    """Rotations beyond them would be read out of bounds."""
    path = export_decoder(source, tmp_path / "model", target="tensorrt", max_model_len=64)

    with pytest.raises(ConfigurationError, match="is made for 64 positions; 65 are asked for"):
        fit_decoder(read_decoder(path.parent), 65)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"not a model"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """In one line."""
    (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(ConfigurationError):
        read_decoder(tmp_path)


def test_weights_outside_the_folder_are_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parser would open whatever a stranger's file names."""
    monkeypatch.setattr(export_module, "MAX_SINGLE_FILE_BYTES", 0)
    path = export_decoder(source, tmp_path / "model", target="tensorrt")
    assert [file.name for file in read_decoder(path.parent).data_files] == ["model.onnx.data"]
    content = path.read_bytes()
    for location in ("../../model.dat", "/etc/model.data"):
        changed = content.replace(b"model.onnx.data", location.encode())
        assert len(changed) == len(content)
        path.write_bytes(changed)
        with pytest.raises(ConfigurationError, match="the model's folder"):
            read_decoder(path.parent)
    path.write_bytes(content)
    (tmp_path / "second name").hardlink_to(path.parent / "model.onnx.data")
    with pytest.raises(ConfigurationError, match="is a hard link"):
        read_decoder(path.parent)
    (path.parent / "model.onnx.data").unlink()
    with pytest.raises(ConfigurationError, match="is not a file"):
        read_decoder(path.parent)


def cache_as_the_hub_does(folder: Path, root: Path) -> Path:
    """Move a folder's files to blobs, and link to them from a snapshot."""
    repository = root / "models--acme--tiny"
    snapshot = repository / "snapshots" / ("a1" * 20)
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        blob = path.rename(repository / "blobs" / f"{number:064}")
        (snapshot / path.name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


def test_a_cache_of_the_hub_is_read(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its links lead to its own blobs; the parser and the host read the weights through them."""
    monkeypatch.setattr(export_module, "MAX_SINGLE_FILE_BYTES", 0)
    path = export_decoder(source, tmp_path / "model", target="tensorrt")
    snapshot = cache_as_the_hub_does(path.parent, tmp_path / "hub")

    decoder = read_decoder(snapshot)

    assert decoder.data_files == (snapshot / "model.onnx.data",)
    limits = EngineLimits(max_model_len=LENGTH, max_num_seqs=2, max_prefill_tokens=16)
    parse_decoder(find_library(), decoder, limits)
    HostDevice(decoder, limits).close()


def test_links_beside_plain_files_are_refused_by_the_host(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime takes weights out of one folder, and would look for some where they are not."""
    monkeypatch.setattr(export_module, "MAX_SINGLE_FILE_BYTES", 0)
    path = export_decoder(source, tmp_path / "model", target="tensorrt")
    snapshot = cache_as_the_hub_does(path.parent, tmp_path / "hub")
    model = onnx.load(snapshot / path.name, load_external_data=False)
    (snapshot / "rest.data").write_bytes((snapshot / "model.onnx.data").read_bytes())
    first = next(weight for weight in model.graph.initializer if weight.external_data)
    [location] = [entry for entry in first.external_data if entry.key == "location"]
    location.value = "rest.data"
    (snapshot / path.name).write_bytes(model.SerializeToString())
    decoder = read_decoder(snapshot)
    assert len(decoder.data_files) == 2

    limits = EngineLimits(max_model_len=LENGTH, max_num_seqs=2, max_prefill_tokens=16)
    with pytest.raises(ConfigurationError, match="links and plain files side by side"):
        HostDevice(decoder, limits)


@pytest.mark.parametrize("where", ["outside", "models--acme--other/blobs"])
def test_a_cache_of_the_hub_hides_no_other_links(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Beyond its blobs it is a folder like any other."""
    monkeypatch.setattr(export_module, "MAX_SINGLE_FILE_BYTES", 0)
    path = export_decoder(source, tmp_path / "model", target="tensorrt")
    snapshot = cache_as_the_hub_does(path.parent, tmp_path / "hub")
    elsewhere = tmp_path / "hub" / where / "model.onnx.data"
    elsewhere.parent.mkdir(parents=True)
    link = snapshot / "model.onnx.data"
    elsewhere.write_bytes(link.read_bytes())
    link.unlink()
    link.symlink_to(elsewhere)

    with pytest.raises(ConfigurationError, match="is a link"):
        read_decoder(snapshot)


@pytest.mark.parametrize("place", ["node", "graph of a node", "function"])
def test_weights_of_nodes_are_files_of_the_model_as_well(
    source: Path, tmp_path: Path, place: str
) -> None:
    """The parser reads them, too: out of the folder they may not lie, and a change counts."""
    path = export_decoder(source, tmp_path / "model", target="tensorrt")
    model = onnx.load(path)
    weight = onnx.numpy_helper.from_array(np.ones(4, np.float32), "weight")
    onnx.external_data_helper.set_external_data(weight, "of-a-node.data")
    weight.ClearField("raw_data")
    node = onnx.helper.make_node("Constant", [], ["unused"], value=weight)
    if place == "function":
        model.functions.append(
            onnx.helper.make_function("mine", "F", [], ["unused"], [node], model.opset_import)
        )
    elif place == "graph of a node":
        inner = onnx.helper.make_graph([node], "inner", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["x"], [], then_branch=inner))
    else:
        model.graph.node.append(node)
    onnx.save(model, path)
    data = path.parent / "of-a-node.data"
    (tmp_path / "elsewhere.data").write_bytes(bytes(16))
    data.symlink_to(tmp_path / "elsewhere.data")
    with pytest.raises(ConfigurationError, match="is a link"):
        read_decoder(path.parent)

    data.unlink()
    data.write_bytes(bytes(16))

    assert read_decoder(path.parent).data_files == (data,)


def test_a_cache_that_is_read_whole_is_refused(source: Path, tmp_path: Path) -> None:
    """What it would compute with windows is not what it says."""
    path = export_decoder(source, tmp_path / "model", target="tensorrt")
    decoder = read_decoder(path.parent)
    for reads in (("Identity", "past_key_values.0.key"), ("Shape", "present.0.key")):
        model = onnx.ModelProto.FromString(decoder.model.SerializeToString())
        model.graph.node.append(onnx.helper.make_node(reads[0], [reads[1]], ["x"], name="odd"))
        onnx.save(model, path)
        with pytest.raises(ConfigurationError, match="node 'odd'"):
            fit_decoder(read_decoder(path.parent), LENGTH)


def test_a_configuration_that_is_no_object_is_refused(source: Path, tmp_path: Path) -> None:
    """In one line, as everything that comes with a model."""
    path = export_decoder(source, tmp_path / "model", target="tensorrt")
    (path.parent / "config.json").write_text(json.dumps([]))

    with pytest.raises(ConfigurationError, match=r"config\.json is no JSON object"):
        read_decoder(path.parent)

"""Model folders from strangers: what must not be opened is refused by name (threats M1 to M6)."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from provider_core import ConfigurationError, ModelRunner, ModelSpec
from provider_export.export import export_decoder
from provider_onnxruntime import load_model
from provider_onnxruntime.model_folder import find_decoder_file, read_decoder
from tests.tiny_checkpoints import write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good decoder folder."""
    write_checkpoint(tmp_path / "model")
    export_decoder(tmp_path / "model", tmp_path / "model")
    return tmp_path / "model"


def load(folder: Path, **facts: Any) -> ModelRunner | None:
    """Load it as the server does."""
    spec = ModelSpec(id="m", source="", max_num_seqs=2, max_model_len=32, **facts)
    runner = load_model(spec, folder)
    assert runner is None or isinstance(runner, ModelRunner)
    return runner


def write_external(folder: Path, location: str, **entries: str) -> None:
    """Point one weight to a file."""
    model = onnx.load(folder / "model.onnx")
    tensor = find_weight(model)
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": location, "length": str(size)} | entries).items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def weight_bytes(folder: Path) -> bytes:
    """Of that weight."""
    raw: bytes = find_weight(onnx.load(folder / "model.onnx")).raw_data
    return raw


def find_weight(model: onnx.ModelProto) -> onnx.TensorProto:
    """The embedding table."""
    name = "model.embed_tokens.weight"
    weight: onnx.TensorProto
    [weight] = [tensor for tensor in model.graph.initializer if tensor.name == name]
    return weight


def test_weights_beside_the_model_are_read(folder: Path) -> None:
    """External data in a plain file of the folder is legitimate (M1)."""
    (folder / "weights.bin").write_bytes(weight_bytes(folder))
    write_external(folder, "weights.bin")
    runner = load(folder)
    assert runner is not None
    runner.warm_up()
    runner.close()


@pytest.mark.parametrize(
    "location",
    [
        "../weights.bin",
        "a/../../weights.bin",
        "/etc/passwd",
        "C:\\weights.bin",
        "..\\weights.bin",
        "",
        "missing.bin",
        ".",
    ],
)
def test_weights_outside_the_folder_are_refused(folder: Path, location: str) -> None:
    """A location names a file beneath the model's folder, whatever lies where it points (M1)."""
    (folder.parent / "weights.bin").write_bytes(weight_bytes(folder))
    write_external(folder, location)
    with pytest.raises(ConfigurationError, match="external data"):
        load(folder)


@pytest.mark.parametrize("make_link", [os.symlink, os.link])
def test_linked_weights_are_refused(folder: Path, make_link: Callable[[Path, Path], None]) -> None:
    """A link, symbolic or hard, can show a file from elsewhere (M1)."""
    (folder.parent / "weights.bin").write_bytes(weight_bytes(folder))
    make_link(folder.parent / "weights.bin", folder / "weights.bin")
    write_external(folder, "weights.bin")
    with pytest.raises(ConfigurationError, match="link"):
        load(folder)


def test_a_linked_folder_of_weights_is_refused(folder: Path) -> None:
    """A symbolic link anywhere on the way counts (M1)."""
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "weights.bin").write_bytes(weight_bytes(folder))
    (folder / "inner").symlink_to(elsewhere)
    write_external(folder, "inner/weights.bin")
    with pytest.raises(ConfigurationError, match="link"):
        load(folder)


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"offset": "8"}, "takes bytes"),
        ({"offset": "-8"}, "takes bytes"),
        ({"offset": str(2**63)}, "takes bytes"),
        ({"length": "-4"}, "takes bytes"),
        ({"length": "4"}, "its shape needs"),
        ({"length": "many"}, "no number"),
    ],
)
def test_ranges_that_do_not_fit_are_refused(
    folder: Path, entries: dict[str, str], complaint: str
) -> None:
    """Offset and length stay inside the file and agree with the shape (M1, M6)."""
    (folder / "weights.bin").write_bytes(weight_bytes(folder))
    write_external(folder, "weights.bin", **entries)
    with pytest.raises(ConfigurationError, match=complaint):
        load(folder)


def test_overlapping_ranges_are_refused(folder: Path) -> None:
    """Two weights do not share bytes (M1)."""
    model = onnx.load(folder / "model.onnx")
    onnx.save_model(
        model,
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "0" if entry.key == "offset" else entry.value
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ConfigurationError, match="overlap"):
        load(folder)


def test_a_linked_model_file_is_refused(folder: Path) -> None:
    """`model.onnx` itself must lie in the folder (M1)."""
    (folder / "model.onnx").rename(folder.parent / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere.onnx")
    with pytest.raises(ConfigurationError, match="link"):
        load(folder)


def cache_as_the_hub_does(folder: Path, root: Path) -> Path:
    """Move a folder's files to blobs, and link to them from a snapshot."""
    repository = root / "models--acme--tiny"
    snapshot = repository / "snapshots" / ("a1" * 20)
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        blob = repository / "blobs" / f"{number:064}"
        path.rename(blob)
        (snapshot / path.name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


def test_a_cache_of_the_hub_is_read(folder: Path, tmp_path: Path) -> None:
    """Its links lead to its own blobs, and platforms fetch models into one (M1)."""
    (folder / "weights.bin").write_bytes(weight_bytes(folder))
    write_external(folder, "weights.bin")
    runner = load(cache_as_the_hub_does(folder, tmp_path / "hub"))
    assert runner is not None
    runner.warm_up()
    runner.close()


@pytest.mark.parametrize("where", ["outside", "models--acme--other/blobs"])
def test_a_cache_of_the_hub_hides_no_other_links(folder: Path, tmp_path: Path, where: str) -> None:
    """Beyond its blobs it is a folder like any other (M1)."""
    (folder / "weights.bin").write_bytes(weight_bytes(folder))
    write_external(folder, "weights.bin")
    snapshot = cache_as_the_hub_does(folder, tmp_path / "hub")
    elsewhere = tmp_path / "hub" / where / "weights.bin"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes((snapshot / "weights.bin").read_bytes())
    (snapshot / "weights.bin").unlink()
    (snapshot / "weights.bin").symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match="link"):
        load(snapshot)


def test_custom_operators_are_refused(folder: Path) -> None:
    """An operator of an unknown domain would need a library (M3)."""
    model = onnx.load(folder / "model.onnx")
    model.graph.node.append(helper.make_node("Run", ["logits"], ["ran"], domain="ai.evil"))
    model.opset_import.append(helper.make_opsetid("ai.evil", 1))
    onnx.save_model(model, folder / "model.onnx")
    with pytest.raises(ConfigurationError, match=r"ai\.evil\.Run needs a custom operator library"):
        load(folder)


def test_custom_operators_in_a_subgraph_are_refused(folder: Path) -> None:
    """A branch hides nothing (M3)."""
    model = onnx.load(folder / "model.onnx")
    node = helper.make_node("Run", ["logits"], ["ran"], domain="ai.evil")
    ran = helper.make_tensor_value_info("ran", TensorProto.FLOAT, None)
    branch = helper.make_graph([node], "branch", [], [ran])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))  # noqa: FBT003
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch)
    )
    onnx.save_model(model, folder / "model.onnx")
    with pytest.raises(ConfigurationError, match=r"ai\.evil\.Run"):
        load(folder)


def test_compiled_engines_are_refused(folder: Path) -> None:
    """An EPContext node carries or names code for a device (M4)."""
    model = onnx.load(folder / "model.onnx")
    model.graph.node.append(
        helper.make_node(
            "EPContext", [], ["out"], domain="com.microsoft", ep_cache_context="x.engine"
        )
    )
    onnx.save_model(model, folder / "model.onnx")
    with pytest.raises(ConfigurationError, match="compiled engine"):
        load(folder)


def test_session_options_inside_the_model_are_refused(folder: Path) -> None:
    """Only our settings say how a session runs (M3)."""
    model = onnx.load(folder / "model.onnx")
    entry = model.metadata_props.add()
    entry.key, entry.value = "ort_config", "{}"
    onnx.save_model(model, folder / "model.onnx")
    with pytest.raises(ConfigurationError, match="ort_config"):
        load(folder)


def test_a_custom_library_in_genai_config_is_refused(folder: Path) -> None:
    """`custom_ops_library` is code (M3)."""
    decoder = {"filename": "model.onnx", "session_options": {"custom_ops_library": "x.so"}}
    (folder / "genai_config.json").write_text(json.dumps({"model": {"decoder": decoder}}))
    with pytest.raises(ConfigurationError, match="custom_ops_library"):
        load(folder)


@pytest.mark.parametrize("name", ["../model.onnx", "/model.onnx", "missing.onnx"])
def test_genai_config_cannot_name_files_elsewhere(folder: Path, name: str) -> None:
    """The decoder's file lies beneath the folder (M1)."""
    (folder.parent / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    (folder / "genai_config.json").write_text(
        json.dumps({"model": {"decoder": {"filename": name}}})
    )
    with pytest.raises(ConfigurationError, match="filename"):
        load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": {"decoder": 3}}', "{"])
def test_a_malformed_genai_config_is_refused(folder: Path, text: str) -> None:
    """It is named as the culprit."""
    (folder / "genai_config.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"genai_config\.json"):
        load(folder)


def test_genai_config_names_the_file_and_its_inputs(folder: Path) -> None:
    """The file may be called anything, and so may inputs and outputs."""
    model = onnx.load(folder / "model.onnx")
    renamed = {"input_ids": "tokens", "logits": "scores"}
    for layer in range(2):
        for part in ("key", "value"):
            renamed[f"past_key_values.{layer}.{part}"] = f"cache_{part}_{layer}_in"
            renamed[f"present.{layer}.{part}"] = f"cache_{part}_{layer}_out"
    for info in (*model.graph.input, *model.graph.output):
        info.name = renamed.get(info.name, info.name)
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    onnx.save_model(model, folder / "renamed.onnx")
    (folder / "model.onnx").unlink()
    decoder = {
        "filename": "renamed.onnx",
        "inputs": {
            "input_ids": "tokens",
            "past_key_names": "cache_key_%d_in",
            "past_value_names": "cache_value_%d_in",
        },
        "outputs": {
            "logits": "scores",
            "present_key_names": "cache_key_%d_out",
            "present_value_names": "cache_value_%d_out",
        },
    }
    (folder / "genai_config.json").write_text(json.dumps({"model": {"decoder": decoder}}))
    runner = load(folder)
    assert runner is not None
    runner.warm_up()
    runner.close()


def test_a_folder_without_a_decoder_is_left_to_others(tmp_path: Path) -> None:
    """Pickled weights are not looked at; nobody is asked to run them (M5)."""
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert load(tmp_path) is None
    with pytest.raises(ConfigurationError, match="holds no ONNX decoder"):
        load(tmp_path, backend="onnxruntime")


def test_a_decoder_meant_for_another_backend_is_left_to_it(folder: Path) -> None:
    """`backend` names who must load it."""
    assert load(folder, backend="tensorrt") is None


def test_the_onnx_subfolder_is_found(folder: Path) -> None:
    """onnx-community's layout."""
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
    assert find_decoder_file(folder) == folder / "onnx" / "model.onnx"


def test_a_variant_is_served_when_it_is_named(folder: Path) -> None:
    """Folders of several precisions: `options.model_file` chooses, and cannot leave the folder."""
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx" / "model_fp32.onnx")
    with pytest.raises(ConfigurationError, match="name its decoder in the option model_file"):
        load(folder)
    runner = load(folder, options={"model_file": "onnx/model_fp32.onnx"})
    assert runner is not None
    runner.close()
    with pytest.raises(ConfigurationError, match="model_file"):
        load(folder, options={"model_file": "../model.onnx"})


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"not a model", b"\xff" * 64, b"\x3a\xff\xff\xff\xff\x7f"]
)
def test_what_is_no_model_is_refused(folder: Path, content: bytes) -> None:
    """Garbage and lengths beyond the end of the file (M6)."""
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ConfigurationError, match="is not an ONNX model"):
        load(folder)


def test_a_truncated_model_is_refused(folder: Path) -> None:
    """The process lives and says so (M6)."""
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigurationError, match="is not an ONNX model"):
        load(folder)


@pytest.mark.parametrize(("precision", "expected"), [("fp32", "fp32"), ("fp16", "fp16")])
def test_precision_is_that_of_the_stored_weights(
    folder: Path, precision: Any, expected: str
) -> None:
    """Read from the graph, not from a name."""
    path = export_decoder(folder, folder, precision=precision)
    assert read_decoder(folder, path).precision == expected

"""The view of a model that passes change: weights stay on disk, only what is used is saved."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from provider_onnxruntime.optimise.graph import ALIGNMENT, ModelGraph, names_read

SIZE = 64


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """`y = x @ first + bias`, and a product that nobody wants; weights beside the model."""
    rng = np.random.default_rng(1)
    weights = {
        name: rng.normal(size=(SIZE, SIZE)).astype(np.float32) for name in ("first", "unused")
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["product"]),
        helper.make_node("MatMul", ["x", "unused"], ["nothing"]),
        helper.make_node("Add", ["product", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", SIZE])],
        [
            *(numpy_helper.from_array(value, name) for name, value in weights.items()),
            numpy_helper.from_array(np.array([0.5], np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    folder = tmp_path / "source"
    folder.mkdir()
    onnx.save_model(
        model,
        folder / "model.onnx",
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=1024,
    )
    return folder / "model.onnx"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a copy goes."""
    (tmp_path / "target").mkdir()
    return tmp_path / "target" / "model.onnx"


def run(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """What a model makes of ones."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    [y] = session.run(None, {"x": np.ones((2, SIZE), np.float32)})
    return np.asarray(y, np.float32)


def test_a_copy_computes_the_same_without_what_nobody_wants(source: Path, target: Path) -> None:
    """It does not need the source's files."""
    expected = run(source)
    with ModelGraph(source, target) as graph:
        assert graph.save() == target
    source.with_name("model.onnx.data").unlink()
    np.testing.assert_array_equal(run(target), expected)
    model = onnx.load(target, load_external_data=False)
    assert [tensor.name for tensor in model.graph.initializer] == ["first", "bias"]
    assert len(model.graph.node) == 2


def test_weights_are_read_from_where_they_are(source: Path, target: Path) -> None:
    """From the source's file, from the model itself, and from what was added."""
    stored = {
        item.name: numpy_helper.to_array(item) for item in onnx.load(source).graph.initializer
    }
    added = np.arange(4096, dtype=np.int64).reshape(64, 64).T
    with ModelGraph(source, target) as graph:
        graph.add_constant("added", added)
        graph.add_constant("scalar", np.array(3.0, np.float32))
        for name, value in {**stored, "added": added}.items():
            found = graph.constant(name)
            assert found is not None
            np.testing.assert_array_equal(found, value)
            assert graph.constant_shape(name) == value.shape
        scalar = graph.constant("scalar")
        assert scalar is not None
        assert scalar.shape == ()
        assert graph.constant("x") is None
        assert graph.constant_shape("product") is None


def test_weights_stay_on_disk_until_they_are_asked_for(source: Path, target: Path) -> None:
    """A graph opens without its weights, and writes one at a time at the starts of pages."""
    with ModelGraph(source, target) as graph:
        graph.add_constant("second", np.eye(SIZE, dtype=np.float32))
        node = graph.producer("product")
        assert node is not None
        square = helper.make_node("MatMul", ["first", "second"], ["weight"])
        node.input[1] = "weight"
        graph.replace(node, [square, node])
        assert target.with_name("model.onnx.data").exists()
        graph.save()
    model = onnx.load(target, load_external_data=False)
    places = {
        tensor.name: {item.key: item.value for item in tensor.external_data}
        for tensor in model.graph.initializer
    }
    assert {name for name, place in places.items() if place} == {"first", "second"}
    offsets = {int(place["offset"]) for place in places.values() if place}
    assert len(offsets) == 2
    assert all(offset % ALIGNMENT == 0 for offset in offsets)
    np.testing.assert_allclose(run(target), run(source), rtol=1e-5)


def test_nodes_are_found_by_what_they_make_and_read(source: Path, target: Path) -> None:
    """Also after one was replaced."""
    with ModelGraph(source, target) as graph:
        add = graph.producer("y")
        assert add is not None
        assert [node.op_type for node in graph.consumers("product")] == ["Add"]
        between = helper.make_node("Neg", ["product"], ["turned"])
        add.input[0] = "turned"
        graph.replace(add, [between, add])
        assert graph.producer("turned") is between
        assert graph.consumers("product") == [between]
        assert {"x", "turned", "y", "first"} <= graph.names()
        graph.save()
    np.testing.assert_allclose(run(target), 1 - run(source), rtol=1e-4, atol=1e-5)


def test_inputs_and_shapes_of_outputs_can_be_changed(source: Path, target: Path) -> None:
    """As declared to whoever opens the copy."""
    with ModelGraph(source, target) as graph:
        graph.add_input("spare", TensorProto.INT64, ["n"])
        assert graph.input_names == ["x", "spare"]
        graph.remove_input("spare")
        graph.set_output_shape("y", ["rows", SIZE])
        assert graph.output_type("y") == (TensorProto.FLOAT, ("rows", SIZE))
        graph.save()
    session = ort.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_inputs()] == ["x"]
    assert [item.name for item in session.get_outputs()] == ["y"]


def test_branches_read_values_too() -> None:
    """A value that only a branch reads is in use."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["outside"], ["inside"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["condition"], ["y"], then_branch=inner, else_branch=inner)
    assert {"condition", "outside"} <= names_read(node)

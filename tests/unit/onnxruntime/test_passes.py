"""Passes on small graphs: what each changes, and that the unknown is left alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from provider_onnxruntime.optimise.graph import CONTRIB, ModelGraph
from provider_onnxruntime.optimise.passes import feed_lengths, fold_biases, keep_wanted_rows

WIDTH, VOCAB_SIZE = 32, 48
Node = tuple[str, Sequence[str], Sequence[str], dict[str, Any]]


def write_model(
    path: Path,
    nodes: Sequence[Node],
    inputs: dict[str, Sequence[int | str]],
    outputs: dict[str, Sequence[int | str]],
    constants: dict[str, npt.NDArray[Any]],
) -> Path:
    """A model of float32 inputs and outputs, `attention_mask` and `ids` excepted."""

    def describe(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
        dtype = TensorProto.INT64 if name in {"attention_mask", "ids"} else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, dtype, shape)

    made = []
    for op_type, reads, writes, attributes in nodes:
        is_contrib = op_type in {"MatMulNBits", "GroupQueryAttention"}
        domain = CONTRIB if is_contrib else ""
        made.append(helper.make_node(op_type, reads, writes, domain=domain, **attributes))
    graph = helper.make_graph(
        made,
        "tiny",
        [describe(*item) for item in inputs.items()],
        [describe(*item) for item in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(CONTRIB, 1)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def run(path: Path, **feed: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Outputs of a model."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, feed)]


def operators(path: Path) -> list[str]:
    """Types of a model's nodes, in order."""
    return [node.op_type for node in onnx.load(path).graph.node]


HEADS: dict[str, list[Node]] = {
    "plain": [("MatMul", ["x", "weight"], ["logits"], {})],
    "cast": [
        ("MatMul", ["x", "weight"], ["product"], {}),
        ("Cast", ["product"], ["logits"], {"to": TensorProto.FLOAT}),
    ],
    "softcap": [
        ("MatMul", ["x", "weight"], ["product"], {}),
        ("Div", ["product", "cap"], ["shrunk"], {}),
        ("Tanh", ["shrunk"], ["squashed"], {}),
        ("Mul", ["squashed", "cap"], ["logits"], {}),
    ],
    "tied": [
        ("Transpose", ["table"], ["turned"], {"perm": [1, 0]}),
        ("MatMul", ["x", "turned"], ["logits"], {}),
    ],
    "bias": [
        ("MatMul", ["x", "weight"], ["product"], {}),
        ("Add", ["bias", "product"], ["logits"], {}),
    ],
}
OTHER_HEADS: dict[str, list[Node]] = {
    "mixes rows": [
        ("MatMul", ["x", "weight"], ["product"], {}),
        ("CumSum", ["product", "axis"], ["logits"], {}),
    ],
    "scaled by rows": [
        ("MatMul", ["x", "weight"], ["product"], {}),
        ("ReduceMax", ["x", "last"], ["scale"], {"keepdims": 1}),
        ("Mul", ["product", "scale"], ["logits"], {}),
    ],
    "no product": [("Tile", ["x", "times"], ["logits"], {})],
    "a weight that is computed": [
        ("Transpose", ["x"], ["turned"], {"perm": [0, 2, 1]}),
        ("MatMul", ["x", "turned"], ["logits"], {}),
    ],
    "a product that is used twice": [
        ("MatMul", ["x", "weight"], ["product"], {}),
        ("Tanh", ["product"], ["logits"], {}),
        ("Identity", ["product"], ["other"], {}),
    ],
}


def write_head(path: Path, nodes: list[Node]) -> Path:
    """Logits of `x`."""
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(WIDTH, VOCAB_SIZE)).astype(np.float32)
    outputs: dict[str, Sequence[int | str]] = {"logits": ["n", "s", "v"]}
    if any("other" in writes for _, _, writes, _ in nodes):
        outputs["other"] = ["n", "s", "v"]
    constants: dict[str, npt.NDArray[Any]] = {
        "weight": weight,
        "table": np.ascontiguousarray(weight.T),
        "bias": rng.normal(size=VOCAB_SIZE).astype(np.float32),
        "cap": np.array(5, np.float32),
        "axis": np.array(1, np.int64),
        "last": np.array([-1], np.int64),
        "times": np.array([1, 1, 2], np.int64),
    }
    return write_model(path, nodes, {"x": ["n", "s", WIDTH]}, outputs, constants)


@pytest.mark.parametrize("nodes", HEADS.values(), ids=HEADS)
def test_logits_are_made_of_the_wanted_rows(nodes: list[Node], tmp_path: Path) -> None:
    """So many of the last positions; 0, and more than there are, mean all."""
    source = write_head(tmp_path / "source.onnx", nodes)
    x = np.random.default_rng(4).normal(size=(2, 5, WIDTH)).astype(np.float32)
    [everything] = run(source, x=x)
    with ModelGraph(source, tmp_path / "target.onnx") as graph:
        assert keep_wanted_rows(graph, "logits")
        assert not keep_wanted_rows(graph, "logits")
        target = graph.save()
    for number, rows in ((1, slice(4, 5)), (3, slice(2, 5)), (0, slice(0, 5)), (9, slice(0, 5))):
        [logits] = run(target, x=x, num_logits_to_keep=np.array(number, np.int64))
        assert logits.shape[1] == len(range(5)[rows])
        np.testing.assert_allclose(logits, everything[:, rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("nodes", OTHER_HEADS.values(), ids=OTHER_HEADS)
def test_other_heads_are_left_alone(nodes: list[Node], tmp_path: Path) -> None:
    """Where dropping rows would change those that stay, or somebody else's."""
    source = write_head(tmp_path / "source.onnx", nodes)
    with ModelGraph(source, tmp_path / "target.onnx") as graph:
        assert not keep_wanted_rows(graph, "logits")
        assert operators(graph.save()) == operators(source)


def mask_nodes() -> list[Node]:
    """How genai's builder counts lengths, in the order in which it does."""
    return [
        ("ReduceSum", ["attention_mask", "one"], ["sum"], {"keepdims": 0}),
        ("Sub", ["sum", "one"], ["last"], {}),
        ("Cast", ["last"], ["mask.seqlens"], {"to": TensorProto.INT32}),
        ("Shape", ["attention_mask"], ["shape"], {}),
        ("Gather", ["shape", "index"], ["length"], {"axis": 0}),
        ("Cast", ["length"], ["mask.total"], {"to": TensorProto.INT32}),
    ]


def attention_node(
    layer: int, seqlens: str = "mask.seqlens", total: str = "mask.total", *, x: str = "x"
) -> Node:
    """One layer of a single head."""
    past = [f"past.{layer}.key", f"past.{layer}.value"]
    present = [f"present.{layer}.key", f"present.{layer}.value"]
    reads = [x, x, x, *past, seqlens, total]
    sizes = {"num_heads": 1, "kv_num_heads": 1}
    return ("GroupQueryAttention", reads, [f"y.{layer}", *present], sizes)


def write_attention(path: Path, nodes: list[Node], num_layers: int = 2) -> Path:
    """Layers of attention on the mask's lengths."""
    caches = [f"{layer}.{part}" for layer in range(num_layers) for part in ("key", "value")]
    shape: Sequence[int | str] = ["n", 1, "t", WIDTH]
    return write_model(
        path,
        nodes,
        {
            "x": ["n", "s", WIDTH],
            "attention_mask": ["n", "total"],
            **{f"past.{name}": shape for name in caches},
        },
        {
            f"y.{num_layers - 1}": ["n", "s", WIDTH],
            **{f"present.{name}": shape for name in caches},
        },
        {"one": np.array([1], np.int64), "index": np.array(1, np.int64)},
    )


def test_lengths_are_fed_in_place_of_a_mask(tmp_path: Path) -> None:
    """The nodes that counted are gone, and so is the mask; the outcome has the same bits."""
    nodes = [*mask_nodes(), attention_node(0), attention_node(1, x="y.0")]
    source = write_attention(tmp_path / "source.onnx", nodes)
    with ModelGraph(source, tmp_path / "target.onnx") as graph:
        assert feed_lengths(graph)
        assert not feed_lengths(graph)
        target = graph.save()
    assert operators(target) == ["GroupQueryAttention"] * 2
    x = np.random.default_rng(5).normal(size=(1, 4, WIDTH)).astype(np.float32)
    caches = [f"past.{layer}.{part}" for layer in range(2) for part in ("key", "value")]
    past = {name: np.zeros((1, 1, 8, WIDTH), np.float32) for name in caches}
    masked = run(source, x=x, attention_mask=np.ones((1, 4), np.int64), **past)
    fed = run(
        target,
        x=x,
        seqlens_k=np.array([3], np.int32),
        total_sequence_length=np.array(4, np.int32),
        **past,
    )
    for one, other in zip(masked, fed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_mask_that_is_wanted_elsewhere_stays(tmp_path: Path) -> None:
    """Lengths are fed beside it."""
    nodes = [
        *mask_nodes(),
        attention_node(0),
        ("Cast", ["attention_mask"], ["weights"], {"to": TensorProto.FLOAT}),
        ("ReduceMean", ["weights"], ["mean"], {}),
        ("Mul", ["y.0", "mean"], ["scaled"], {}),
        attention_node(1, x="scaled"),
    ]
    source = write_attention(tmp_path / "source.onnx", nodes)
    with ModelGraph(source, tmp_path / "target.onnx") as graph:
        assert feed_lengths(graph)
        assert {"attention_mask", "seqlens_k", "total_sequence_length"} <= set(graph.input_names)


OTHER_LENGTHS: dict[str, list[Node]] = {
    "layers that differ": [
        *mask_nodes(),
        ("Identity", ["mask.seqlens"], ["copy"], {}),
        attention_node(0),
        attention_node(1, seqlens="copy", x="y.0"),
    ],
    "lengths that depend on the input": [
        *mask_nodes(),
        ("ReduceMax", ["x"], ["peak"], {"keepdims": 0}),
        ("Cast", ["peak"], ["offset"], {"to": TensorProto.INT32}),
        ("Add", ["mask.seqlens", "offset"], ["moved"], {}),
        attention_node(0, seqlens="moved"),
        attention_node(1, seqlens="moved", x="y.0"),
    ],
}


@pytest.mark.parametrize("nodes", OTHER_LENGTHS.values(), ids=OTHER_LENGTHS)
def test_other_lengths_are_left_alone(nodes: list[Node], tmp_path: Path) -> None:
    """What a layer is given must be what the mask says, and nothing else."""
    source = write_attention(tmp_path / "source.onnx", nodes)
    with ModelGraph(source, tmp_path / "target.onnx") as graph:
        assert not feed_lengths(graph)
        assert operators(graph.save()) == operators(source)


def write_biased(path: Path, bias: Sequence[str], size: int = VOCAB_SIZE) -> Path:
    """A product of int4 weights, and something added to it."""
    rng = np.random.default_rng(6)
    sizes = {"K": WIDTH, "N": VOCAB_SIZE, "bits": 4, "block_size": 32, "accuracy_level": 4}
    return write_model(
        path,
        [
            ("MatMulNBits", ["x", "int4", "scales"], ["product"], sizes),
            ("Add", bias, ["sum"], {}),
            ("Tanh", ["sum"], ["y"], {}),
        ],
        {"x": ["n", "s", WIDTH]},
        {"y": ["n", "s", VOCAB_SIZE]},
        {
            "int4": rng.integers(0, 256, (VOCAB_SIZE, 1, 16)).astype(np.uint8),
            "scales": rng.uniform(0.01, 0.1, VOCAB_SIZE).astype(np.float32),
            "bias": rng.normal(size=size).astype(np.float32),
        },
    )


@pytest.mark.parametrize("bias", [("product", "bias"), ("bias", "product")])
def test_a_bias_is_added_by_the_product(bias: Sequence[str], tmp_path: Path) -> None:
    """On either side of the sum."""
    source = write_biased(tmp_path / "source.onnx", bias)
    with ModelGraph(source, tmp_path / "target.onnx") as graph:
        assert fold_biases(graph)
        assert not fold_biases(graph)
        target = graph.save()
    assert operators(target) == ["MatMulNBits", "Tanh"]
    x = np.random.default_rng(7).normal(size=(2, 3, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(run(source, x=x)[0], run(target, x=x)[0], atol=1e-6)


@pytest.mark.parametrize(("bias", "size"), [(("product", "bias"), 1), (("product", "product"), 48)])
def test_what_is_no_bias_is_left_alone(bias: Sequence[str], size: int, tmp_path: Path) -> None:
    """One number for all outputs, or a value that is computed."""
    source = write_biased(tmp_path / "source.onnx", bias, size)
    with ModelGraph(source, tmp_path / "target.onnx") as graph:
        assert not fold_biases(graph)

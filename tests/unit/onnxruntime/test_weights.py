"""Derived weights: what is read of each stored form, and what the new layers compute."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from provider_core import ConfigurationError
from provider_core.quantization import pack_int4, quantize_blocks, quantize_channels
from provider_onnxruntime.optimise.embeddings import gather_before_cast
from provider_onnxruntime.optimise.graph import CONTRIB, ModelGraph
from provider_onnxruntime.optimise.matrices import (
    BlockMatrix,
    ChannelMatrix,
    FloatMatrix,
    Matrix,
    read_bits_matrix,
    read_matrix,
    split_blocks,
)
from provider_onnxruntime.optimise.weights import convert_weights, pack_blocks
from provider_onnxruntime.weight_sets import WeightSet

Float32 = npt.NDArray[np.float32]

NUM_IN, NUM_OUT = 96, 40  # three blocks of 32, less than one of 128
RNG = np.random.default_rng(5)
WEIGHT = RNG.normal(0, 0.1, (NUM_IN, NUM_OUT)).astype(np.float32)
HALF = WEIGHT.astype(np.float16)
CHANNELS = quantize_channels(WEIGHT)
BLOCKS = quantize_blocks(WEIGHT, 32)


def int4(name: str, values: npt.NDArray[np.int8]) -> onnx.TensorProto:
    """An initializer of int4."""
    packed = pack_int4(values).tobytes()
    return helper.make_tensor(name, TensorProto.INT4, values.shape, packed, raw=True)


def node(op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    """A node of one output."""
    return helper.make_node(op_type, inputs, [output], name=output, **attributes)


def save(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    tensors: dict[str, npt.NDArray[Any]],
    *more: onnx.TensorProto,
    opset: int = 21,
) -> Path:
    """A model of `x` `[n, s, NUM_IN]` whose output `y` is the last node's."""
    weights = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "s", NUM_IN])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "s", None])],
        [*weights, *more],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(CONTRIB, 1)]
    path = folder / "model.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def dequantize(*inputs: str, **attributes: int) -> onnx.NodeProto:
    """DequantizeLinear to `w`."""
    return node("DequantizeLinear", inputs, "w", **attributes)


TURN = node("Transpose", ["stored"], "w", perm=[1, 0])
STORED: dict[str, tuple[list[onnx.NodeProto], list[onnx.TensorProto], Matrix]] = {
    "float32": ([], [numpy_helper.from_array(WEIGHT, "w")], FloatMatrix(WEIGHT)),
    "float16 and Cast": (
        [node("Cast", ["stored"], "w", to=TensorProto.FLOAT)],
        [numpy_helper.from_array(HALF, "stored")],
        FloatMatrix(HALF.astype(np.float32)),
    ),
    "a table's transpose": (
        [TURN],
        [numpy_helper.from_array(np.ascontiguousarray(WEIGHT.T), "stored")],
        FloatMatrix(WEIGHT),
    ),
    "int8 by output": (
        [dequantize("stored", "scales", axis=1)],
        [
            numpy_helper.from_array(CHANNELS[0], "stored"),
            numpy_helper.from_array(CHANNELS[1], "scales"),
        ],
        ChannelMatrix(*CHANNELS),
    ),
    "int8 table, transposed before": (
        [
            node("Transpose", ["stored"], "turned", perm=[1, 0]),
            dequantize("turned", "scales", axis=1),
        ],
        [
            numpy_helper.from_array(np.ascontiguousarray(CHANNELS[0].T), "stored"),
            numpy_helper.from_array(CHANNELS[1], "scales"),
        ],
        ChannelMatrix(*CHANNELS),
    ),
    "int8 table, transposed behind": (
        [
            node("DequantizeLinear", ["table", "scales"], "stored", axis=0),
            TURN,
        ],
        [
            numpy_helper.from_array(np.ascontiguousarray(CHANNELS[0].T), "table"),
            numpy_helper.from_array(CHANNELS[1], "scales"),
        ],
        ChannelMatrix(*CHANNELS),
    ),
    "uint8 with a zero point": (
        [dequantize("stored", "scales", "zero", axis=1)],
        [
            numpy_helper.from_array((CHANNELS[0].astype(int) + 128).astype(np.uint8), "stored"),
            numpy_helper.from_array(CHANNELS[1], "scales"),
            numpy_helper.from_array(np.full(NUM_OUT, 128, np.uint8), "zero"),
        ],
        ChannelMatrix(*CHANNELS),
    ),
    "int8 of one scale": (
        [dequantize("stored", "scale")],
        [
            numpy_helper.from_array(CHANNELS[0], "stored"),
            numpy_helper.from_array(np.array(0.5, np.float32), "scale"),
        ],
        ChannelMatrix(CHANNELS[0], np.full(NUM_OUT, 0.5, np.float32)),
    ),
    "int8 by input": (
        [dequantize("stored", "scales", axis=0)],
        [
            numpy_helper.from_array(CHANNELS[0], "stored"),
            numpy_helper.from_array(np.arange(1, NUM_IN + 1, dtype=np.float32), "scales"),
        ],
        FloatMatrix(CHANNELS[0] * np.arange(1, NUM_IN + 1, dtype=np.float32)[:, np.newaxis]),
    ),
    "int4 in blocks": (
        [dequantize("stored", "scales", axis=0, block_size=32)],
        [int4("stored", BLOCKS[0]), numpy_helper.from_array(BLOCKS[1], "scales")],
        BlockMatrix(*BLOCKS, 32),
    ),
}
"""By name: nodes that make `w`, initializers, and what is to be read."""


@pytest.mark.parametrize("form", STORED)
def test_a_stored_matrix_is_read_as_it_is(form: str, tmp_path: Path) -> None:
    """Values, scales and kind, to the last bit: nothing is quantised twice."""
    nodes, tensors, expected = STORED[form]
    path = save(tmp_path, [*nodes, node("MatMul", ["x", "w"], "y")], {}, *tensors)
    with ModelGraph(path, tmp_path / "out.onnx") as graph:
        matrix = read_matrix(graph, "w")
    assert type(matrix) is type(expected)
    for name in expected.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(matrix, name), getattr(expected, name))


def bits_layer(folder: Path, matrix: BlockMatrix, *, has_zero_points: bool) -> Path:
    """A model of one MatMulNBits; its zero points, if it has any, are 8 as without."""
    num_in, num_out = matrix.values.shape
    blocks = len(matrix.scales)
    tensors: dict[str, npt.NDArray[Any]] = {
        "b": pack_blocks(matrix),
        "scales": np.ascontiguousarray(matrix.scales.T).reshape(-1),
        "zero": np.full(num_out * ((blocks + 1) // 2), 0x88, np.uint8),
    }
    inputs = ["x", "b", "scales"] + ["zero"] * has_zero_points
    sizes = {"K": num_in, "N": num_out, "bits": 4, "block_size": matrix.block_size}
    layer = node("MatMulNBits", inputs, "y", domain=CONTRIB, accuracy_level=4, **sizes)
    return save(folder, [layer], tensors)


@pytest.mark.parametrize("has_zero_points", [False, True])
def test_the_operators_own_int4_is_read_back(tmp_path: Path, *, has_zero_points: bool) -> None:
    """What `pack_blocks` packed; zero points of 8 said or implied are the same matrix."""
    matrix = BlockMatrix(*BLOCKS, 32)
    path = bits_layer(tmp_path, matrix, has_zero_points=has_zero_points)
    with ModelGraph(path, tmp_path / "out.onnx") as graph:
        read = read_bits_matrix(graph, graph.nodes[0])
    assert read is not None
    assert isinstance(read, FloatMatrix if has_zero_points else BlockMatrix)
    np.testing.assert_array_equal(read.to_float(), matrix.to_float())


@pytest.mark.parametrize("has_zero_points", [False, True])
def test_layers_in_int4_are_never_quantised_again(tmp_path: Path, *, has_zero_points: bool) -> None:
    """They stay as they are, zero points and all."""
    matrix = BlockMatrix(*quantize_blocks(WEIGHT, 64), 64)
    path = bits_layer(tmp_path, matrix, has_zero_points=has_zero_points)
    with ModelGraph(path, tmp_path / "out.onnx") as graph:
        [layer] = graph.nodes
        convert_weights(graph, WeightSet("int4", 32))
        assert graph.nodes == [layer]


def test_large_blocks_are_split_where_rows_must_be_exact(tmp_path: Path) -> None:
    """The weights stay the same, whatever the blocks."""
    matrix = BlockMatrix(*quantize_blocks(WEIGHT, 64), 64)
    path = bits_layer(tmp_path, matrix, has_zero_points=False)
    session = convert(path, WeightSet("int4", is_row_exact=True))
    [y] = session.run(None, {"x": np.eye(NUM_IN, dtype=np.float32)[np.newaxis]})
    weights = matrix.to_float()
    np.testing.assert_allclose(y[0], weights, atol=1e-6 * np.abs(weights).max())


def test_large_blocks_with_zero_points_cannot_be_exact_in_rows(tmp_path: Path) -> None:
    """They are not split, and not quantised anew either."""
    matrix = BlockMatrix(*quantize_blocks(WEIGHT, 64), 64)
    path = bits_layer(tmp_path, matrix, has_zero_points=True)
    with pytest.raises(ConfigurationError, match="deterministic model needs int4 in blocks of at"):
        convert(path, WeightSet("int4", is_row_exact=True))


def test_smaller_blocks_are_the_same_weights() -> None:
    """A block of 128 with a short end is four of 32, of one scale."""
    matrix = BlockMatrix(*quantize_blocks(np.tile(WEIGHT, (2, 1))[:150], 128), 128)
    split = split_blocks(matrix, 32)
    assert (split.block_size, split.scales.shape) == (32, (5, NUM_OUT))
    np.testing.assert_array_equal(split.to_float(), matrix.to_float())
    assert split_blocks(split, 32) is split


def convert(path: Path, weight_set: WeightSet) -> ort.InferenceSession:
    """A session of the converted model."""
    with ModelGraph(path, path.with_name("converted.onnx")) as graph:
        assert convert_weights(graph, weight_set)
        return ort.InferenceSession(str(graph.save()), providers=["CPUExecutionProvider"])


def quantize_rows(x: Float32) -> tuple[npt.NDArray[np.int32], Float32]:
    """As the int8 layers do: integers and the scale of each row."""
    scales = np.abs(x).max(axis=-1, keepdims=True) * np.float32(1 / 127)
    return np.rint(x / scales).astype(np.int32), scales


@pytest.mark.parametrize("form", STORED)
def test_int8_layers_compute_in_integers(form: str, tmp_path: Path) -> None:
    """Exact sums of int8 products; only the scaling rounds. Rows differ by factors of 1000."""
    nodes, tensors, matrix = STORED[form]
    path = save(tmp_path, [*nodes, node("MatMul", ["x", "w"], "y")], {}, *tensors)
    x = RNG.normal(0, 1, (2, 3, NUM_IN)).astype(np.float32)
    x *= np.float32(1000) ** np.arange(3, dtype=np.float32)[:, np.newaxis]
    [y] = convert(path, WeightSet("int8")).run(None, {"x": x})
    values, scales = (
        (matrix.values, matrix.scales)
        if isinstance(matrix, ChannelMatrix)
        else quantize_channels(matrix.to_float())
    )
    rows, row_scales = quantize_rows(x)
    sums = rows @ values.astype(np.int32)
    np.testing.assert_allclose(y, sums * scales * row_scales, rtol=1e-6)


@pytest.mark.parametrize("is_row_exact", [False, True])
@pytest.mark.parametrize("form", STORED)
def test_int4_layers_have_the_weights_of_their_blocks(
    form: str, tmp_path: Path, *, is_row_exact: bool
) -> None:
    """Rows of the identity bring the weights out one by one."""
    nodes, tensors, matrix = STORED[form]
    path = save(tmp_path, [*nodes, node("MatMul", ["x", "w"], "y")], {}, *tensors)
    weight_set = WeightSet("int4", 32, is_row_exact=is_row_exact)
    [y] = convert(path, weight_set).run(None, {"x": np.eye(NUM_IN, dtype=np.float32)[np.newaxis]})
    if not isinstance(matrix, BlockMatrix):
        matrix = BlockMatrix(*quantize_blocks(matrix.to_float(), 32), 32)
    weights = matrix.to_float()
    np.testing.assert_allclose(y[0], weights, atol=1e-6 * np.abs(weights).max())


@pytest.mark.parametrize("weight_set", [WeightSet("int4", 32), WeightSet("int8")])
def test_biases_and_turned_matrices_of_gemm_are_kept(tmp_path: Path, weight_set: WeightSet) -> None:
    """`x @ w.T + c`, of two dimensions."""
    bias = RNG.normal(0, 1, NUM_OUT).astype(np.float32)
    nodes = [
        node("Squeeze", ["x", "axis"], "rows"),
        node("Gemm", ["rows", "w", "c"], "product", transB=1),
        node("Unsqueeze", ["product", "axis"], "y"),
    ]
    turned = np.ascontiguousarray(WEIGHT.T)
    path = save(tmp_path, nodes, {"w": turned, "c": bias, "axis": np.array([0])})
    x = RNG.normal(0, 1, (1, 4, NUM_IN)).astype(np.float32)
    [y] = convert(path, weight_set).run(None, {"x": x})
    exact = x @ WEIGHT
    error = np.sqrt(((y - bias - exact) ** 2).mean() / (exact**2).mean())
    assert error < {"int4": 0.15, "int8": 0.02}[weight_set.precision]


def test_a_matrix_may_have_fewer_inputs_than_a_block(tmp_path: Path) -> None:
    """96 inputs in a block of 128: the rest is filled up with nothing."""
    path = save(tmp_path, [node("MatMul", ["x", "w"], "y")], {"w": WEIGHT})
    session = convert(path, WeightSet("int4", 128))
    [y] = session.run(None, {"x": np.eye(NUM_IN, dtype=np.float32)[np.newaxis]})
    weights = BlockMatrix(*quantize_blocks(WEIGHT, 128), 128).to_float()
    np.testing.assert_allclose(y[0], weights, atol=1e-6 * np.abs(weights).max())


def test_layers_of_one_input_share_its_quantisation(tmp_path: Path) -> None:
    """Gate and up: one QuantizeLinear, two products."""
    nodes = [
        node("MatMul", ["x", "a"], "gate"),
        node("MatMul", ["x", "b"], "up"),
        node("Mul", ["gate", "up"], "y"),
    ]
    path = save(tmp_path, nodes, {"a": WEIGHT, "b": WEIGHT[::-1].copy()})
    with ModelGraph(path, tmp_path / "out.onnx") as graph:
        convert_weights(graph, WeightSet("int8"))
        op_types = [item.op_type for item in graph.nodes]
    assert op_types.count("QuantizeLinear") == 1
    assert op_types.count("MatMulIntegerToFloat") == 2


def test_rows_of_zeros_stay_zeros(tmp_path: Path) -> None:
    """Their scale is 0; nothing becomes NaN, and no neighbour changes."""
    path = save(tmp_path, [node("MatMul", ["x", "w"], "y")], {"w": WEIGHT})
    session = convert(path, WeightSet("int8"))
    x = RNG.normal(0, 1, (1, 2, NUM_IN)).astype(np.float32)
    [alone] = session.run(None, {"x": x[:, 1:]})
    x[0, 0] = 0
    [y] = session.run(None, {"x": x})
    assert not y[0, 0].any()
    np.testing.assert_array_equal(y[:, 1:], alone)


def test_an_older_opset_is_refused_for_int8(tmp_path: Path) -> None:
    """QuantizeLinear in blocks is of opset 21."""
    path = save(tmp_path, [node("MatMul", ["x", "w"], "y")], {"w": WEIGHT}, opset=20)
    with (
        ModelGraph(path, tmp_path / "out.onnx") as graph,
        pytest.raises(ConfigurationError, match=r"need a decoder of opset 21 or newer.* of 20"),
    ):
        convert_weights(graph, WeightSet("int8"))


def test_products_without_a_constant_matrix_are_left_alone(tmp_path: Path) -> None:
    """Attention's own, and small constants such as rotation frequencies."""
    nodes = [
        node("Transpose", ["x"], "turned", perm=[0, 2, 1]),
        node("MatMul", ["x", "turned"], "scores"),
        node("MatMul", ["scores", "x"], "mixed"),
        node("MatMul", ["mixed", "small"], "y"),
    ]
    path = save(tmp_path, nodes, {"small": WEIGHT[:, :8].copy()})
    with ModelGraph(path, tmp_path / "out.onnx") as graph:
        assert not convert_weights(graph, WeightSet("int4"))
        assert [item.op_type for item in graph.nodes] == [item.op_type for item in nodes]


def test_rows_are_cast_in_place_of_tables(tmp_path: Path) -> None:
    """The same embeddings; the float16 table is read by Gather alone."""
    nodes = [
        node("Cast", ["table"], "wide", to=TensorProto.FLOAT),
        node("Cast", ["x"], "ids", to=TensorProto.INT64),
        node("Gather", ["wide", "ids"], "rows"),
        node("ReduceSum", ["rows", "axis"], "y", keepdims=0),
    ]
    path = save(tmp_path, nodes, {"table": HALF, "axis": np.array([-1])})
    x = RNG.integers(0, NUM_IN, (1, 2, NUM_IN)).astype(np.float32)
    [expected] = ort.InferenceSession(str(path)).run(None, {"x": x})
    with ModelGraph(path, tmp_path / "out.onnx") as graph:
        assert gather_before_cast(graph)
        assert not gather_before_cast(graph)
        changed = graph.save()
        [reader] = graph.consumers("table")
    assert reader.op_type == "Gather"
    [y] = ort.InferenceSession(str(changed)).run(None, {"x": x})
    np.testing.assert_array_equal(y, expected)

"""Other weights for the same graph: int4 blocks, or int8 with activations quantised by the row.

Both take over every linear layer (MatMul, Gemm or MatMulNBits) whose matrix is a constant.

int4 is MatMulNBits of ONNX Runtime, with activations in int8 blocks (`accuracy_level` 4).

int8 is W8A8: a row `x` of activations becomes `q = round(x / s) + 128`, uint8, with the row's own
`s = max(abs(x)) / 127`, and the layer is `(q - 128) @ weight` in int32, times `s` and the outputs'
scales. It is uint8 by int8 because that is what processors multiply fastest, and by the row, not by
the tensor (DynamicQuantizeMatMul), because a request must not depend on its neighbours. Layers that
share an input share its quantisation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from provider_core import ConfigurationError
from provider_core.quantization import pack_int4
from provider_onnxruntime.optimise.graph import CONTRIB, ModelGraph
from provider_onnxruntime.optimise.matrices import (
    BlockMatrix,
    Matrix,
    get_attribute,
    read_bits_matrix,
    read_matrix,
    split_blocks,
    to_blocks,
    to_channels,
)
from provider_onnxruntime.optimise.saturation import require_exact_products
from provider_onnxruntime.weight_sets import ROW_EXACT_BLOCK_SIZE, WeightSet

MIN_SIZE = 16  # inputs or outputs; a smaller matrix is a constant of something else
ROW_OPSET = 21  # QuantizeLinear in blocks, the row being the block
ONE, LEVELS, ZERO_POINT, LAST_AXIS = (f"w8a8.{n}" for n in ("one", "levels", "zero", "axis"))


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """One of the graph's linear layers: `output = x @ matrix + bias`.

    Attributes:
        bias: Name of a value, or empty.
    """

    node: onnx.NodeProto
    matrix: Matrix
    bias: str

    @property
    def x(self) -> str:
        """Name of the input."""
        return str(self.node.input[0])

    @property
    def output(self) -> str:
        """Name of the output, which nodes and weights made for the layer are named after."""
        return str(self.node.output[0])


def read_linear_layer(graph: ModelGraph, node: onnx.NodeProto) -> LinearLayer | None:
    """The linear layer that a node is; none if it is not one with a constant matrix."""
    bias = ""
    match node.op_type:
        case "MatMul":
            matrix = read_matrix(graph, node.input[1])
        case "Gemm" if _is_plain_gemm(node):
            is_turned = bool(get_attribute(node, "transB", 0))
            matrix = read_matrix(graph, node.input[1], is_turned=is_turned)
            bias = node.input[2] if len(node.input) > 2 else ""
        case "MatMulNBits":
            matrix = read_bits_matrix(graph, node)
            bias = node.input[5] if len(node.input) > 5 else ""
        case _:
            return None
    if matrix is None or min(matrix.values.shape) < MIN_SIZE:
        return None
    return LinearLayer(node, matrix, bias)


def _is_plain_gemm(node: onnx.NodeProto) -> bool:
    factors = (get_attribute(node, key, 1.0) for key in ("alpha", "beta"))
    return all(factor == 1.0 for factor in factors) and not get_attribute(node, "transA", 0)


def convert_weights(graph: ModelGraph, weight_set: WeightSet) -> bool:
    """Give every linear layer the wanted weights; say whether there was any.

    Args:
        graph: Changed in place; what fed the old weights is left for dead node removal.
        weight_set: Which.

    Raises:
        ConfigurationError: The graph is of an opset that the new nodes do not fit, or this
            processor does not multiply such integers exactly.
    """
    emit = _Int4(graph, weight_set).emit
    if weight_set.precision == "int8":
        _require_opset(graph)
        require_exact_products()
        emit = _Int8(graph).emit
    has_changed = False
    for node in list(graph.nodes):
        layer = read_linear_layer(graph, node)
        if layer is not None:
            graph.replace(node, emit(layer))
            has_changed = True
    return has_changed


def _require_opset(graph: ModelGraph) -> None:
    if graph.opset < ROW_OPSET:
        raise ConfigurationError(
            f"precisions int8 and hybrid need a decoder of opset {ROW_OPSET} or newer, this one is "
            f"of {graph.opset}; export it again"
        )


class _Int4:
    """Makes MatMulNBits nodes."""

    def __init__(self, graph: ModelGraph, weight_set: WeightSet) -> None:
        self._graph = graph
        self._weight_set = weight_set

    def emit(self, layer: LinearLayer) -> list[onnx.NodeProto]:
        """Nodes in place of the layer's; a layer of 4 bits that is fit stays."""
        name, is_row_exact = layer.output, self._weight_set.is_row_exact
        if _bits(layer.node) == 4:
            if not is_row_exact or _block_size(layer.node) <= ROW_EXACT_BLOCK_SIZE:
                return [layer.node]
            if not isinstance(layer.matrix, BlockMatrix):
                raise ConfigurationError(
                    f"a deterministic model needs int4 in blocks of at most {ROW_EXACT_BLOCK_SIZE},"
                    " or without zero points, so that larger blocks can be split"
                )
        size = ROW_EXACT_BLOCK_SIZE if is_row_exact else self._weight_set.block_size
        matrix = to_blocks(layer.matrix, size)
        if is_row_exact:
            matrix = split_blocks(matrix, size)
        num_in, num_out = matrix.values.shape
        packed = self._graph.add_constant(f"{name}.int4", pack_blocks(matrix))
        scales = np.ascontiguousarray(matrix.scales.T).reshape(-1)
        inputs = [layer.x, packed, self._graph.add_constant(f"{name}.int4_scales", scales)]
        inputs += ["", "", layer.bias] if layer.bias else []
        return [
            helper.make_node(
                "MatMulNBits",
                inputs,
                [name],
                name=name,
                domain=CONTRIB,
                K=num_in,
                N=num_out,
                bits=4,
                block_size=matrix.block_size,
                accuracy_level=4,  # activations in int8 blocks
            )
        ]


class _Int8:
    """Makes W8A8 nodes."""

    def __init__(self, graph: ModelGraph) -> None:
        self._graph = graph
        self._rows: dict[str, tuple[str, str]] = {}  # by input: its quantised rows, their scales
        graph.add_constant(ONE, np.array(1, np.float32))
        graph.add_constant(LEVELS, np.array(1 / 127, np.float32))
        graph.add_constant(ZERO_POINT, np.array([128], np.uint8))
        graph.add_constant(LAST_AXIS, np.array([-1], np.int64))

    def emit(self, layer: LinearLayer) -> list[onnx.NodeProto]:
        """Nodes in place of the layer's."""
        matrix, name = to_channels(layer.matrix), layer.output
        nodes: list[onnx.NodeProto] = []
        if layer.x not in self._rows:
            nodes += self._quantize_rows(layer.x, matrix.values.shape[0])
        rows, row_scales = self._rows[layer.x]
        weight = self._graph.add_constant(f"{name}.int8", np.ascontiguousarray(matrix.values))
        scales = self._graph.add_constant(f"{name}.int8_scales", matrix.scales)
        nodes.append(
            helper.make_node(
                "MatMulIntegerToFloat",
                [rows, weight, ONE, scales, ZERO_POINT],
                [f"{name}.product"],
                name=f"{name}.product",
                domain=CONTRIB,
            )
        )
        scaled = f"{name}.scaled" if layer.bias else name
        nodes.append(_node("Mul", [f"{name}.product", row_scales], scaled))
        if layer.bias:
            nodes.append(_node("Add", [scaled, layer.bias], name))
        return nodes

    def _quantize_rows(self, x: str, size: int) -> list[onnx.NodeProto]:
        """Rows `[..., size]` to uint8 and scales `[..., 1]`.

        QuantizeLinear takes the scales in blocks, of which each row is one: that spares a division
        of all activations, and two reductions are cheaper than one of a copy made by Abs. A row of
        zeros has the scale 0: whatever it becomes is multiplied by 0.
        """
        self._rows[x] = (f"{x}.uint8", f"{x}.scales")
        return [
            _node("ReduceMax", [x, LAST_AXIS], f"{x}.highest", keepdims=1),
            _node("ReduceMin", [x, LAST_AXIS], f"{x}.lowest", keepdims=1),
            _node("Neg", [f"{x}.lowest"], f"{x}.deepest"),
            _node("Max", [f"{x}.highest", f"{x}.deepest"], f"{x}.max"),
            _node("Mul", [f"{x}.max", LEVELS], f"{x}.scales"),
            _node("Shape", [f"{x}.scales"], f"{x}.scales_shape"),
            _node("Expand", [ZERO_POINT, f"{x}.scales_shape"], f"{x}.zero"),
            _node(
                "QuantizeLinear",
                [x, f"{x}.scales", f"{x}.zero"],
                f"{x}.uint8",
                axis=-1,
                block_size=size,
            ),
        ]


def _bits(node: onnx.NodeProto) -> int:
    """Of a MatMulNBits; 0 of other nodes."""
    return int(get_attribute(node, "bits", 0))


def _block_size(node: onnx.NodeProto) -> int:
    return int(get_attribute(node, "block_size", 0))


def pack_blocks(matrix: BlockMatrix) -> npt.NDArray[np.uint8]:
    """B of MatMulNBits: uint8 `[out, blocks, block_size / 2]`, values plus 8, low half first."""
    num_in, num_out = matrix.values.shape
    size = matrix.block_size
    blocks = -(-num_in // size)
    padded = np.zeros((num_out, blocks * size), np.int8)
    padded[:, :num_in] = matrix.values.T
    # In two's complement of 4 bits, adding 8 flips the highest bit.
    flipped = pack_int4(padded) ^ np.uint8(0x88)
    return flipped.reshape(num_out, blocks, size // 2)


def _node(
    op_type: str,
    inputs: list[str],
    output: str,
    **attributes: Any,  # whatever the operator's schema takes
) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, [output], name=output, **attributes)

"""Constant weight matrices of a graph, whatever form they are stored in.

A weight is `[in, out]`, so that `x @ weight` applies it. Three forms are told apart because they
are worth different things to whom derives another from them: int4 blocks are repacked, never
quantised again.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from provider_core.quantization import (
    dequantize_blocks,
    dequantize_channels,
    quantize_blocks,
    quantize_channels,
)
from provider_onnxruntime.optimise.graph import ModelGraph

Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]
UInt8 = npt.NDArray[np.uint8]

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
INTEGER_NAMES = frozenset({"int4", "uint4", "int8", "uint8"})
FLOAT_NAMES = frozenset({"float32", "float16", "bfloat16"})


@dataclass(frozen=True, slots=True)
class FloatMatrix:
    """Values as they are: float32 `[in, out]`."""

    values: Float32

    def to_float(self) -> Float32:
        """The matrix itself."""
        return self.values


@dataclass(frozen=True, slots=True)
class ChannelMatrix:
    """`value * scale` with a scale for each output: int8 `[in, out]`, float32 `[out]`."""

    values: Int8
    scales: Float32

    def to_float(self) -> Float32:
        """The matrix it stands for."""
        return dequantize_channels(self.values, self.scales)


@dataclass(frozen=True, slots=True)
class BlockMatrix:
    """int4 values `[in, out]`, float32 scales `[ceil(in / block_size), out]`."""

    values: Int8
    scales: Float32
    block_size: int

    def to_float(self) -> Float32:
        """The matrix it stands for."""
        return dequantize_blocks(self.values, self.scales, self.block_size)


Matrix = FloatMatrix | ChannelMatrix | BlockMatrix


def to_channels(matrix: Matrix) -> ChannelMatrix:
    """int8 with a scale for each output; as stored if it is that already."""
    if isinstance(matrix, ChannelMatrix):
        return matrix
    return ChannelMatrix(*quantize_channels(matrix.to_float()))


def to_blocks(matrix: Matrix, block_size: int) -> BlockMatrix:
    """int4 in blocks; as stored, with its own block size, if it is that already."""
    if isinstance(matrix, BlockMatrix):
        return matrix
    return BlockMatrix(*quantize_blocks(matrix.to_float(), block_size), block_size)


def split_blocks(matrix: BlockMatrix, block_size: int) -> BlockMatrix:
    """The same weights in blocks of at most `block_size`, which divides larger ones."""
    if matrix.block_size <= block_size:
        return matrix
    blocks = -(-len(matrix.values) // block_size)
    scales = np.repeat(matrix.scales, matrix.block_size // block_size, axis=0)[:blocks]
    return BlockMatrix(matrix.values, scales, block_size)


def read_matrix(graph: ModelGraph, name: str, *, is_turned: bool = False) -> Matrix | None:
    """The matrix behind an input of MatMul or Gemm; none if it is no constant matrix.

    Followed are initializers, Cast, Transpose, and DequantizeLinear with its operands' own Casts
    and Transposes: what exporters write for stored weights.

    Args:
        graph: Where the value is.
        name: Of the value.
        is_turned: The value is `[out, in]`.
    """
    node = graph.producer(name)
    if node is not None and node.op_type == "Transpose" and _turns(node):
        return read_matrix(graph, node.input[0], is_turned=not is_turned)
    if node is not None and node.op_type == "DequantizeLinear":
        return _read_dequantized(graph, node, is_turned=is_turned)
    values = _read_array(graph, name)
    if values is None or values.ndim != 2 or values.dtype.name not in FLOAT_NAMES:
        return None
    floats = values.astype(np.float32, copy=False)
    return FloatMatrix(floats.T if is_turned else floats)


def _read_dequantized(graph: ModelGraph, node: onnx.NodeProto, *, is_turned: bool) -> Matrix | None:
    """What a DequantizeLinear makes, or the transpose of that."""
    operands = [_read_array(graph, name) for name in node.input if name]
    if len(operands) < 2 or any(operand is None for operand in operands):
        return None
    stored, scales, *zero_points = (np.asarray(operand) for operand in operands)
    if stored.ndim != 2 or scales.ndim > 2 or stored.dtype.name not in INTEGER_NAMES:
        return None
    axis = int(get_attribute(node, "axis", 1)) % 2
    block_size = int(get_attribute(node, "block_size", 0))
    scales = scales.astype(np.float32, copy=False)
    is_signed = stored.dtype.name in {"int8", "int4"}
    values: npt.NDArray[Any] = stored.astype(np.int8 if is_signed else np.int16, copy=False)
    if is_turned:
        values, scales, axis = values.T, scales.T, 1 - axis
    if zero_points and zero_points[0].any():
        zero = zero_points[0].astype(np.int16)
        values = values - _spread(zero.T if is_turned else zero, values.shape, axis, block_size)
    if not is_signed or zero_points:
        if values.min() < -128 or values.max() > 127:
            return FloatMatrix(values * _spread(scales, values.shape, axis, block_size))
        values = values.astype(np.int8)
    if scales.size == 1:
        return ChannelMatrix(values, np.repeat(scales.reshape(-1), values.shape[1]))
    if scales.ndim == 1 and axis == 1:
        return ChannelMatrix(values, scales)
    if block_size and axis == 0 and values.min() >= -8 and values.max() <= 7:
        return BlockMatrix(values, scales, block_size)
    return FloatMatrix(values * _spread(scales, values.shape, axis, block_size))


def _spread(
    array: npt.NDArray[Any], shape: tuple[int, ...], axis: int, block_size: int
) -> npt.NDArray[Any]:
    """Scales or zero points, one for each weight or so that they broadcast."""
    if array.size == 1:
        return array.reshape(1, 1)
    if array.ndim == 1:
        return np.expand_dims(array, 1 - axis)
    whole = np.repeat(array, block_size, axis=axis)
    return whole[: shape[0], : shape[1]]


def read_bits_matrix(graph: ModelGraph, node: onnx.NodeProto) -> Matrix | None:
    """The weight of a MatMulNBits node; none if it is no constant or of an unknown form.

    B is uint8 `[out, blocks, block_size * bits / 8]`, of 4 bits the first value of two in the low
    half; the zero point is half the range unless the fourth input gives others.
    """
    num_in, num_out = (int(get_attribute(node, key, 0)) for key in ("K", "N"))
    bits, block_size = (int(get_attribute(node, key, 0)) for key in ("bits", "block_size"))
    stored, scales = (_read_array(graph, name) for name in node.input[1:3])
    has_order = len(node.input) > 4 and node.input[4]
    if stored is None or scales is None or bits not in {4, 8} or has_order:
        return None
    blocks = -(-num_in // block_size)
    scales = scales.reshape(num_out, blocks).astype(np.float32)
    values = _unpack(stored.reshape(num_out, -1), bits)[:, :num_in].astype(np.int16)
    if len(node.input) > 3 and node.input[3]:
        zero_points = _read_array(graph, node.input[3])
        if zero_points is None:
            return None
        if zero_points.dtype == np.uint8:
            zero_points = _unpack(zero_points.reshape(num_out, -1), bits)[:, :blocks]
        zero = np.repeat(zero_points.reshape(num_out, blocks), block_size, axis=1)[:, :num_in]
        steps = values - zero.astype(np.float32)
        return FloatMatrix((steps * np.repeat(scales, block_size, axis=1)[:, :num_in]).T)
    signed = (values - (1 << (bits - 1))).astype(np.int8)
    if bits == 4:
        return BlockMatrix(signed.T, scales.T, block_size)
    return FloatMatrix((signed * np.repeat(scales, block_size, axis=1)[:, :num_in]).T)


def _unpack(packed: UInt8, bits: int) -> UInt8:
    """Unsigned values `[rows, columns]`."""
    if bits == 8:
        return packed
    halves = np.stack([packed & np.uint8(0x0F), packed >> np.uint8(4)], axis=-1)
    return halves.reshape(len(packed), -1)


def get_attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute's value."""
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _read_array(graph: ModelGraph, name: str) -> npt.NDArray[Any] | None:
    """An initializer, behind any number of Casts between floats and Transposes."""
    node = graph.producer(name)
    if node is None:
        return graph.constant(name)
    is_cast = node.op_type == "Cast" and get_attribute(node, "to", 0) in FLOATS
    if not is_cast and node.op_type != "Transpose":
        return None
    array = _read_array(graph, node.input[0])
    if array is None or is_cast:
        return array  # a Cast to a float of stored floats: the caller reads float32 anyway
    return array.transpose(get_attribute(node, "perm", None))


def _turns(node: onnx.NodeProto) -> bool:
    return list(get_attribute(node, "perm", [1, 0])) == [1, 0]

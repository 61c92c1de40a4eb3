"""Weights as small integers with scales, in numpy: what exporters write and backends rewrite.

Symmetric quantisation without zero points: a weight is `value * scale`, as ONNX's
DequantizeLinear computes it. A weight matrix is `[in, out]`, so that `x @ weight` applies it.

=========  ==================  =================================  =========================
precision  values              scales                             shared by
=========  ==================  =================================  =========================
int4       -8 to 7             float32 `[ceil(in / block), out]`  a block along the inputs
int8       -127 to 127         float32 `[out]`                    all weights of an output
=========  ==================  =================================  =========================

Scales are always positive, which TensorRT demands. Everything is deterministic, and works on a
part of the matrix at a time, so that it takes little memory beside its argument and its result.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]
UInt8 = npt.NDArray[np.uint8]

INT4_MIN, INT4_MAX = -8, 7
INT8_MAX = 127
NEGLIGIBLE = 1e-30  # no model has weights so small, and their scales' reciprocals overflow
PART_SIZE = 2**17  # weights handled at a time: they and their temporaries stay in the CPU's cache
TRIED_STEPS = (6.5, 7.0, 7.5, 8.0, 8.5)
"""How many steps of the first scales tried reach from 0 to the largest weight of a block.

7 loses nothing beyond the range; more steps clip the largest weight a little and round all others
more finely. On normally distributed weights these five leave a root-mean-square error 6 to 12 %
below that of 7 alone, and three more candidates gain under 1 %.
"""


def quantize_blocks(weight: Float32, block_size: int, bits: int = 4) -> tuple[Int8, Float32]:
    """Quantise to int4, a scale for each block of consecutive inputs of an output.

    For each of a few scales `s` the values are `q = clip(round(w / s), -8, 7)`, and then the scale
    that fits these values best is `sum(w * q) / sum(q * q)`, the least-squares solution, which
    leaves the error `sum(w * w) - sum(w * q) ** 2 / sum(q * q)`. The candidate of the least error
    is kept. (llama.cpp makes its k-quants by the same fit, `make_qx_quants` in ggml-quants.c.)

    Args:
        weight: `[in, out]`, finite. Any memory order; the result has the same.
        block_size: Inputs that share a scale; the last block is shorter where it does not divide
            the inputs, as DequantizeLinear and MatMulNBits have it.
        bits: Of a value; 4.

    Returns:
        Values from -8 to 7, `[in, out]`, and positive scales, `[ceil(in / block_size), out]`.

    Raises:
        ValueError: The weight is not a finite matrix, or the arguments are out of range.
    """
    if bits != 4 or block_size < 1:
        raise ValueError(f"no blocks of {block_size} weights of {bits} bits")
    _check_matrix(weight)
    num_in, num_out = weight.shape
    num_blocks = -(-num_in // block_size)
    values = np.empty_like(weight, dtype=np.int8)
    scales = np.empty_like(weight, dtype=np.float32, shape=(num_blocks, num_out))
    for columns in _parts(num_in, num_out):
        padded = np.zeros((num_blocks * block_size, columns.stop - columns.start), np.float32)
        padded[:num_in] = weight[:, columns]
        blocks = padded.reshape(num_blocks, block_size, -1)
        part, scales[:, columns] = _quantize_part(blocks)
        values[:, columns] = part.reshape(padded.shape)[:num_in]
    return values, scales


def _quantize_part(blocks: Float32) -> tuple[Float32, Float32]:
    """Values `[block, weight, out]` and scales `[block, out]` of `[block, weight, out]`."""
    largest = np.maximum(blocks.max(axis=1), -blocks.min(axis=1))
    largest[largest < NEGLIGIBLE] = 1  # all values become 0: any scale will do
    first_scale, best_scale, best_fit = largest, largest, np.zeros_like(largest)
    for steps in TRIED_STEPS:
        tried = largest / np.float32(steps)
        values = _round_to_int4(blocks, tried)
        product = np.einsum("bwo,bwo->bo", blocks, values)
        square = np.einsum("bwo,bwo->bo", values, values)
        scale = product / np.maximum(square, 1)
        # By how much the error is below that of all zeros, in units that cannot overflow.
        fit = (scale / largest) * (product / largest)
        is_better = fit > best_fit
        first_scale = np.where(is_better, tried, first_scale)
        best_scale = np.where(is_better, scale, best_scale)
        best_fit = np.maximum(fit, best_fit)
    return _round_to_int4(blocks, first_scale), best_scale


def _round_to_int4(blocks: Float32, scale: Float32) -> Float32:
    values: Float32 = blocks * np.reciprocal(scale)[:, np.newaxis]
    np.rint(values, out=values)
    np.clip(values, INT4_MIN, INT4_MAX, out=values)
    return values


def dequantize_blocks(values: Int8, scales: Float32, block_size: int) -> Float32:
    """`value * scale of its block`, `[in, out]`: DequantizeLinear (ONNX opset 21) along axis 0."""
    return values * np.repeat(scales, block_size, axis=0)[: len(values)]


def quantize_channels(weight: Float32) -> tuple[Int8, Float32]:
    """Quantise to int8, one scale for each output: `q = round(w / s)`, `s = max(abs(w)) / 127`.

    -128 never occurs, so that the values' negatives are values too.

    Args:
        weight: `[in, out]`, finite. Any memory order; the result has the same.

    Returns:
        Values from -127 to 127, `[in, out]`, and positive scales, `[out]`.

    Raises:
        ValueError: The weight is not a finite matrix.
    """
    _check_matrix(weight)
    num_in, num_out = weight.shape
    values = np.empty_like(weight, dtype=np.int8)
    scales = np.empty(num_out, np.float32)
    for columns in _parts(num_in, num_out):
        part = weight[:, columns]
        largest = np.maximum(part.max(axis=0), -part.min(axis=0))
        largest[largest < NEGLIGIBLE] = 1
        scales[columns] = largest / np.float32(INT8_MAX)
        steps = part * np.reciprocal(scales[columns])
        np.rint(steps, out=steps)
        values[:, columns] = np.clip(steps, -INT8_MAX, INT8_MAX, out=steps)
    return values, scales


def dequantize_channels(values: Int8, scales: Float32) -> Float32:
    """`value * scale of its output`, `[in, out]`: DequantizeLinear along axis 1."""
    return values * scales


def pack_int4(values: Int8) -> UInt8:
    """Two values a byte, flat in C order, the first in the low half: ONNX's INT4.

    Args:
        values: From -8 to 7, of any shape.

    Returns:
        `[ceil(size / 2)]`; an odd last value leaves the high half 0.
    """
    nibbles = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    low: UInt8 = nibbles[0::2] & np.uint8(0x0F)
    high: UInt8 = nibbles[1::2] << np.uint8(4)
    low[: len(high)] |= high
    return low


def unpack_int4(packed: UInt8, shape: tuple[int, ...]) -> Int8:
    """What `pack_int4` packed, in its shape.

    Raises:
        ValueError: There are too few or too many bytes for the shape.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if len(packed) != (size + 1) // 2:
        raise ValueError(f"{len(packed)} bytes are not {size} values of 4 bits")
    values = np.empty(2 * len(packed), np.int8)
    signed = packed.view(np.int8)
    values[0::2] = (signed << np.int8(4)) >> np.int8(4)  # an arithmetic shift keeps the sign
    values[1::2] = signed >> np.int8(4)
    return values[:size].reshape(shape)


def _check_matrix(weight: Float32) -> None:
    if weight.ndim != 2 or weight.dtype != np.float32 or not weight.size:
        raise ValueError(f"not a float32 matrix: {weight.dtype} {list(weight.shape)}")
    if not (np.isfinite(weight.max()) and np.isfinite(weight.min())):
        raise ValueError("a weight is infinite or not a number")


def _parts(num_in: int, num_out: int) -> Iterator[slice]:
    """Consecutive columns of a matrix, so many at a time that they hold about `PART_SIZE`."""
    width = max(1, PART_SIZE // num_in)
    return (slice(start, min(start + width, num_out)) for start in range(0, num_out, width))

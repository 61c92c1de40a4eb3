"""How matrices are stored: as floats, or as integers with scales in standard ONNX.

A linear layer's matrix is `[in, out]` and feeds its MatMul through

- nothing (fp32) or a Cast (fp16), which a runtime folds when it loads;
- a DequantizeLinear of int8 or float8 values with a scale for each output (axis 1);
- a DequantizeLinear of int4 values with a scale for each block of inputs (axis 0, `block_size`).

A table is `[vocabulary, in]`: embeddings are its rows, and the matrix of a tied head its transpose.
It is stored once, quantised as that matrix is, along the inputs; the head reads values and scales
through a Transpose each, which a runtime folds when it loads. ONNX has no Gather of int4 values:
int4 rows are gathered by GatherBlockQuantized (com.microsoft), which only some targets know.
"""

from collections.abc import Callable
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from provider_core import ConfigurationError
from provider_core.quantization import quantize_blocks
from provider_export.graph_builder import CONTRIB, GraphBuilder

Matrix = npt.NDArray[np.float32]
MAX_FP8 = np.float32(448)  # of float8_e4m3fn
FLOAT_NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


class WeightFormat(Protocol):
    """Stores matrices and tables, and makes the nodes that read them."""

    def add_matrix(self, graph: GraphBuilder, name: str, weight: Matrix) -> str:
        """Store `[in, out]`; return a float32 value of that shape, called `name`."""
        ...

    def add_table(self, graph: GraphBuilder, name: str, weight: Matrix) -> None:
        """Store `[vocabulary, in]` for the two methods below."""
        ...

    def gather_rows(self, graph: GraphBuilder, name: str, table: str, ids: str) -> str:
        """Rows of a stored table: float32 `[*ids, in]`."""
        ...

    def transpose_table(self, graph: GraphBuilder, name: str, table: str) -> str:
        """A stored table as the matrix of a linear layer: float32 `[in, vocabulary]`."""
        ...


class FloatFormat:
    """Floating point.

    Args:
        dtype: What it is stored as; a Cast makes what layers compute in of it.
    """

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._dtype = np.dtype(dtype)

    def add_matrix(self, graph: GraphBuilder, name: str, weight: Matrix) -> str:
        """Store it, before a Cast where layers compute in another dtype.

        Raises:
            ConfigurationError: A weight does not fit into float16.
        """
        is_narrow = self._dtype == np.float16
        if is_narrow and max(weight.max(), -weight.min()) > np.finfo(np.float16).max:
            raise ConfigurationError(f"tensor {name} does not fit into fp16; export with fp32")
        values = weight.astype(self._dtype, copy=False)
        if self._dtype == graph.float_dtype:
            return graph.add_constant(name, values)
        stored = graph.add_constant(f"{name}.{FLOAT_NAMES[self._dtype.name]}", values)
        return graph.add_node("Cast", (stored,), name, to=graph.float_type)

    def add_table(self, graph: GraphBuilder, name: str, weight: Matrix) -> None:
        """A table is stored as any matrix."""
        self.add_matrix(graph, name, weight)

    def gather_rows(self, graph: GraphBuilder, name: str, table: str, ids: str) -> str:
        """Gather."""
        return graph.add_node("Gather", (table, ids), name, axis=0)

    def transpose_table(self, graph: GraphBuilder, name: str, table: str) -> str:
        """Transpose."""
        return graph.add_node("Transpose", (table,), name, perm=(1, 0))


Quantize = Callable[[Matrix], tuple[npt.NDArray[Any], Matrix]]
"""`[in, out]` to values of that shape, and the scale of each output."""


class ChannelFormat:
    """Values of few bits with a scale for each output, which for a table is a row.

    Args:
        suffix: Of the values' names.
        quantize: Makes them.
    """

    def __init__(self, suffix: str, quantize: Quantize) -> None:
        self._suffix = suffix
        self._quantize = quantize

    def add_matrix(self, graph: GraphBuilder, name: str, weight: Matrix) -> str:
        """Quantise and store."""
        values, scales = self._quantize(weight)
        stored = graph.add_constant(f"{name}.{self._suffix}", values)
        graph.add_floats(f"{name}.scales", scales)
        return self._dequantize(graph, name, stored, f"{name}.scales")

    def add_table(self, graph: GraphBuilder, name: str, weight: Matrix) -> None:
        """Quantise and store."""
        values, scales = self._quantize(weight.T)
        graph.add_constant(f"{name}.{self._suffix}", values.T)
        graph.add_constant(f"{name}.scales", scales)

    def gather_rows(self, graph: GraphBuilder, name: str, table: str, ids: str) -> str:
        """Gather values and scales and multiply them, so that no other row is touched."""
        stored = f"{table}.{self._suffix}"
        values = graph.add_node("Gather", (stored, ids), f"{name}.{self._suffix}", axis=0)
        steps = graph.add_node("Cast", (values,), f"{name}.steps", to=TensorProto.FLOAT)
        scales = graph.add_node("Gather", (f"{table}.scales", ids), f"{name}.row_scales", axis=0)
        last = graph.add_constant(f"{name}.last_axis", np.array([-1], np.int64))
        column = graph.add_node("Unsqueeze", (scales, last), f"{name}.scales")
        return graph.add_node("Mul", (steps, column), name)

    def transpose_table(self, graph: GraphBuilder, name: str, table: str) -> str:
        """Transpose the values; a row's scale is now a column's."""
        stored = f"{table}.{self._suffix}"
        values = graph.add_node("Transpose", (stored,), f"{name}.{self._suffix}", perm=(1, 0))
        return self._dequantize(graph, name, values, f"{table}.scales")

    @staticmethod
    def _dequantize(graph: GraphBuilder, name: str, values: str, scales: str) -> str:
        return graph.add_node("DequantizeLinear", (values, scales), name, axis=1)


def quantize_fp8(weight: Matrix) -> tuple[npt.NDArray[Any], Matrix]:
    """Round to float8_e4m3fn, so that the largest weight of each output is its largest number.

    Args:
        weight: `[in, out]`.

    Returns:
        Values of that shape, and scales `[out]`; an output without weights has the scale 1.
    """
    scales = np.abs(weight).max(axis=0) / MAX_FP8
    scales[scales == 0] = 1
    return (weight / scales).astype(ml_dtypes.float8_e4m3fn), scales


class Int4Format:
    """int4 values with a scale for each block of inputs."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size

    def add_matrix(self, graph: GraphBuilder, name: str, weight: Matrix) -> str:
        """Quantise and store."""
        values, scales = quantize_blocks(weight, self._block_size)
        graph.add_int4(f"{name}.int4", values)
        graph.add_floats(f"{name}.scales", scales)
        return self._dequantize(graph, name, f"{name}.int4", f"{name}.scales")

    def add_table(self, graph: GraphBuilder, name: str, weight: Matrix) -> None:
        """Quantise and store."""
        values, scales = quantize_blocks(weight.T, self._block_size)
        graph.add_int4(f"{name}.int4", values.T)
        graph.add_constant(f"{name}.scales", scales.T)

    def gather_rows(self, graph: GraphBuilder, name: str, table: str, ids: str) -> str:
        """GatherBlockQuantized."""
        return graph.add_node(
            "GatherBlockQuantized",
            (f"{table}.int4", ids, f"{table}.scales"),
            name,
            domain=CONTRIB,
            gather_axis=0,
            quantize_axis=1,
            block_size=self._block_size,
        )

    def transpose_table(self, graph: GraphBuilder, name: str, table: str) -> str:
        """Transpose values and scales."""
        values = graph.add_node("Transpose", (f"{table}.int4",), f"{name}.int4", perm=(1, 0))
        scales = graph.add_node("Transpose", (f"{table}.scales",), f"{name}.scales", perm=(1, 0))
        return self._dequantize(graph, name, values, scales)

    def _dequantize(self, graph: GraphBuilder, name: str, values: str, scales: str) -> str:
        return graph.add_node(
            "DequantizeLinear", (values, scales), name, axis=0, block_size=self._block_size
        )

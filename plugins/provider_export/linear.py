"""Linear layers and embeddings of a graph, whatever format their weights are stored in."""

import numpy as np
import numpy.typing as npt

from provider_export.graph_builder import GraphBuilder
from provider_export.weight_formats import Matrix, WeightFormat


class LinearLayers:
    """Adds them to a graph.

    Args:
        graph: Where nodes and weights go.
        matrices: How linear layers store their weights.
        tables: How embeddings do; the same object where a tied head is to share their table.
    """

    def __init__(self, graph: GraphBuilder, matrices: WeightFormat, tables: WeightFormat) -> None:
        self._graph = graph
        self._matrices = matrices
        self._tables = tables
        self.shares_tables = tables is matrices

    def add_linear(
        self, name: str, x: str, weight: Matrix, bias: npt.NDArray[np.float32] | None = None
    ) -> str:
        """`x @ weight + bias`.

        Args:
            name: Of the result; the weights' names begin with it.
            x: `[..., in]`.
            weight: `[in, out]`.
            bias: `[out]`; stored in what layers compute in, whatever the format.
        """
        graph = self._graph
        matrix = self._matrices.add_matrix(graph, f"{name}.weight", weight)
        if bias is None:
            return graph.add_node("MatMul", (x, matrix), name)
        product = graph.add_node("MatMul", (x, matrix), f"{name}.product")
        return graph.add_node("Add", (product, graph.add_floats(f"{name}.bias", bias)), name)

    def add_embedding(self, name: str, ids: str, table: str, weight: Matrix) -> str:
        """Rows of `weight` by their numbers.

        Args:
            name: Of the result, `[*ids, in]`.
            ids: Whole numbers.
            table: A name for the weight.
            weight: `[vocabulary, in]`.
        """
        self._tables.add_table(self._graph, table, weight)
        return self._tables.gather_rows(self._graph, name, table, ids)

    def add_tied_linear(self, name: str, x: str, table: str) -> str:
        """`x @ weight.T` with an embedding's weight; only where `shares_tables`."""
        matrix = self._tables.transpose_table(self._graph, f"{name}.weight", table)
        return self._graph.add_node("MatMul", (x, matrix), name)

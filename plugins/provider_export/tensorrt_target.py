"""Operators for TensorRT: the `scatter` convention, opset 24, no vendor operator.

TensorScatter writes the new keys and values into caches of fixed length, and Attention sees the
whole cache under a mask made of `position_ids`: TensorRT ignores Attention's own length input, so
only the mask keeps stale positions out. ONNX Runtime runs the same file.
"""

import numpy as np
import onnx
from onnx import TensorProto

from provider_export.cpu_target import add_rotation_tables, rotation_tables
from provider_export.decoder_config import DecoderConfig
from provider_export.graph_builder import GraphBuilder
from provider_export.rope import Rope

OPSET = 24  # TensorScatter


class TensorRtTarget:
    """Builds with standard operators only."""

    def __init__(self, config: DecoderConfig, graph: GraphBuilder) -> None:
        self._config = config
        self._graph = graph

    def declare_inputs(self) -> None:
        """Positions, where to write, caches, tables, and the mask that all layers share."""
        graph, config = self._graph, self._config
        graph.add_input("position_ids", TensorProto.INT64, ("batch_size", "sequence_length"))
        graph.add_input("write_indices", TensorProto.INT64, ("batch_size",))
        shape = ("batch_size", config.num_kv_heads, "max_sequence_length", config.head_dim)
        for layer in range(config.num_layers):
            for part in ("key", "value"):
                graph.add_input(f"past_key_values.{layer}.{part}", graph.float_type, shape)
                graph.add_output(f"present.{layer}.{part}", graph.float_type, shape)
        add_rotation_tables(graph, config)
        if graph.float_type != TensorProto.FLOAT:
            for rope in config.ropes:
                for table in rotation_tables(rope):
                    graph.add_node("Cast", (table,), f"{table}.rounded", to=graph.float_type)
        self._add_masks()

    def _add_masks(self) -> None:
        """Bool `[batch, 1, sequence, max_sequence_length]`, one for each window that occurs.

        A query at position p sees keys at positions up to p, and with a window w those after p - w.
        """
        graph = self._graph
        length = graph.add_node(
            "Shape", ("past_key_values.0.key",), "mask.max_length", start=2, end=3
        )
        scalar = graph.add_constant("mask.scalar", np.array([], np.int64))
        end = graph.add_node("Reshape", (length, scalar), "mask.end")
        bounds = [
            graph.add_constant(f"mask.{name}", np.array(value, np.int64))
            for name, value in (("first", 0), ("step", 1))
        ]
        keys = graph.add_node("Range", (bounds[0], end, bounds[1]), "mask.keys")
        axes = graph.add_constant("mask.axes", np.array([1, 3], np.int64))
        queries = graph.add_node("Unsqueeze", ("position_ids", axes), "mask.queries")
        graph.add_node("LessOrEqual", (keys, queries), "mask")
        for window in dict.fromkeys(layer.window for layer in self._config.layers if layer.window):
            size = graph.add_constant(f"mask.{window}.size", np.array(window, np.int64))
            start = graph.add_node("Sub", (queries, size), f"mask.{window}.start")
            near = graph.add_node("Greater", (keys, start), f"mask.{window}.near")
            graph.add_node("And", ("mask", near), f"mask.{window}")

    def norm(self, name: str, x: str, weight: str) -> str:
        """RMS norm over the last axis."""
        return self._graph.add_node(
            "RMSNormalization", (x, weight), name, axis=-1, epsilon=self._config.rms_norm_eps
        )

    def add_and_norm(self, name: str, x: str, residual: str, weight: str) -> tuple[str, str]:
        """Sum, then norm."""
        total = self._graph.add_node("Add", (x, residual), f"{name}.sum")
        return total, self.norm(name, total, weight)

    def attend(self, layer: int, query: str, key: str, value: str) -> str:
        """Rotate, scatter into the cache, attend under the mask."""
        config, graph, name = self._config, self._graph, f"layers.{layer}.attention"
        here = config.layers[layer]
        rotated_query = self._rotate(query, config.num_heads, here.rope)
        rotated_key = self._rotate(key, config.num_kv_heads, here.rope)
        new = {
            "key": self._split_heads(rotated_key, config.num_kv_heads),
            "value": self._split_heads(value, config.num_kv_heads),
        }
        for part, update in new.items():
            graph.add_node(
                "TensorScatter",
                (f"past_key_values.{layer}.{part}", update, "write_indices"),
                f"present.{layer}.{part}",
                axis=2,
                mode="linear",
            )
        split_query = self._split_heads(rotated_query, config.num_heads)
        mask = f"mask.{here.window}" if here.window else "mask"
        if config.attention_softcap:
            heads = self._attend_softly(layer, split_query, mask)
        else:
            heads = graph.add_node(
                "Attention",
                (split_query, f"present.{layer}.key", f"present.{layer}.value", mask),
                f"{name}.heads",
                scale=config.attention_scale,
            )
        rows = graph.add_node("Transpose", (heads,), f"{name}.rows", perm=(0, 2, 1, 3))
        shape = np.array([0, 0, config.num_heads * config.head_dim], np.int64)
        whole = graph.add_constant(f"{name}.whole", shape)
        return graph.add_node("Reshape", (rows, whole), name)

    def _attend_softly(self, layer: int, query: str, mask: str) -> str:
        """Attention with a softcap, which TensorRT's Attention refuses, out of its parts.

        The query heads of a group attend as so many more positions of their one key-value head.

        Args:
            layer: Counts from 0.
            query: `[batch, num_heads, sequence, head_dim]`.
            mask: `[batch, 1, sequence, max_sequence_length]`.

        Returns:
            As `query`.
        """
        config, graph, name = self._config, self._graph, f"layers.{layer}.attention"
        cap = config.attention_softcap
        numbers = {"shrink": config.attention_scale / cap, "cap": cap, "never": -np.inf}
        for constant, number in numbers.items():
            graph.add_floats(f"{name}.{constant}", np.array(number, np.float32))
        for constant, num_heads in {
            "grouped": config.num_kv_heads,
            "by_head": config.num_heads,
        }.items():
            graph.add_constant(f"{name}.{constant}", np.array([0, num_heads, -1, 0], np.int64))
        grouped = graph.add_node("Reshape", (query, f"{name}.grouped"), f"{name}.queries")
        keys = graph.add_node(
            "Transpose", (f"present.{layer}.key",), f"{name}.keys", perm=(0, 1, 3, 2)
        )
        products = graph.add_node("MatMul", (grouped, keys), f"{name}.products")
        shrunk = graph.add_node("Mul", (products, f"{name}.shrink"), f"{name}.shrunk")
        squashed = graph.add_node("Tanh", (shrunk,), f"{name}.squashed")
        capped = graph.add_node("Mul", (squashed, f"{name}.cap"), f"{name}.capped")
        scores = graph.add_node("Reshape", (capped, f"{name}.by_head"), f"{name}.scores")
        seen = graph.add_node("Where", (mask, scores, f"{name}.never"), f"{name}.seen")
        weights = graph.add_node("Softmax", (seen,), f"{name}.weights", axis=-1)
        weights = graph.add_node("Reshape", (weights, f"{name}.grouped"), f"{name}.group_weights")
        mixed = graph.add_node("MatMul", (weights, f"present.{layer}.value"), f"{name}.mixed")
        return graph.add_node("Reshape", (mixed, f"{name}.by_head"), f"{name}.heads")

    def _rotate(self, x: str, num_heads: int, rope: Rope) -> str:
        suffix = "" if self._graph.float_type == TensorProto.FLOAT else ".rounded"
        tables = [f"{table}{suffix}" for table in rotation_tables(rope)]
        return self._graph.add_node(
            "RotaryEmbedding",
            (x, *tables, "position_ids"),
            f"{x}.rotated",
            num_heads=num_heads,
            rotary_embedding_dim=rope.rotary_dim if rope.rotary_dim < self._config.head_dim else 0,
        )

    def _split_heads(self, x: str, num_heads: int) -> str:
        """`[batch, sequence, heads * head_dim]` to `[batch, heads, sequence, head_dim]`."""
        graph = self._graph
        shape = np.array([0, 0, num_heads, self._config.head_dim], np.int64)
        split = graph.add_node(
            "Reshape", (x, graph.add_constant(f"{x}.shape", shape)), f"{x}.heads_last"
        )
        return graph.add_node("Transpose", (split,), f"{x}.by_head", perm=(0, 2, 1, 3))

    def build(self) -> onnx.ModelProto:
        """The finished model."""
        return self._graph.build(opset=OPSET, uses_contrib=False)

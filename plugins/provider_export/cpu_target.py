"""Operators for ONNX Runtime: the `genai` convention with the lengths as direct inputs.

GroupQueryAttention (com.microsoft) rotates, writes keys and values into the cache in place, and
takes rows of different lengths. `seqlens_k` is each row's length after this step, less one;
`total_sequence_length` the longest row's length after this step.
"""

import numpy as np
import onnx
from onnx import TensorProto

from provider_export.decoder_config import DecoderConfig
from provider_export.graph_builder import CONTRIB, GraphBuilder

OPSET = 23  # RMSNormalization


class CpuTarget:
    """Builds with contrib operators that the CPU and CUDA providers have kernels for."""

    def __init__(self, config: DecoderConfig, graph: GraphBuilder) -> None:
        self._config = config
        self._graph = graph

    def declare_inputs(self) -> None:
        """Lengths, caches, and the rotation's tables."""
        graph, config = self._graph, self._config
        graph.add_input("seqlens_k", TensorProto.INT32, ("batch_size",))
        graph.add_input("total_sequence_length", TensorProto.INT32, ())
        shape = ("batch_size", config.num_kv_heads, "max_sequence_length", config.head_dim)
        for layer in range(config.num_layers):
            for part in ("key", "value"):
                graph.add_input(f"past_key_values.{layer}.{part}", TensorProto.FLOAT, shape)
                graph.add_output(f"present.{layer}.{part}", TensorProto.FLOAT, shape)
        add_rotation_tables(graph, config)

    def norm(self, name: str, x: str, weight: str) -> str:
        """RMS norm over the last axis."""
        return self._graph.add_node(
            "RMSNormalization", (x, weight), name, axis=-1, epsilon=self._config.rms_norm_eps
        )

    def add_and_norm(self, name: str, x: str, residual: str, weight: str) -> tuple[str, str]:
        """Sum and norm in one kernel."""
        total = f"{name}.sum"
        self._graph.add_nodes(
            "SkipSimplifiedLayerNormalization",
            (x, residual, weight),
            (name, "", "", total),
            domain=CONTRIB,
            epsilon=self._config.rms_norm_eps,
        )
        return total, name

    def attend(self, layer: int, query: str, key: str, value: str) -> str:
        """Grouped-query attention over the shared cache."""
        config, name = self._config, f"layers.{layer}.attention"
        past = tuple(f"past_key_values.{layer}.{part}" for part in ("key", "value"))
        present = tuple(f"present.{layer}.{part}" for part in ("key", "value"))
        lengths = ("seqlens_k", "total_sequence_length")
        self._graph.add_nodes(
            "GroupQueryAttention",
            (query, key, value, *past, *lengths, "cos_cache", "sin_cache"),
            (name, *present),
            domain=CONTRIB,
            num_heads=config.num_heads,
            kv_num_heads=config.num_kv_heads,
            do_rotary=1,
            scale=config.head_dim**-0.5,
        )
        return name

    def build(self) -> onnx.ModelProto:
        """The finished model."""
        return self._graph.build(opset=OPSET, uses_contrib=True)


def add_rotation_tables(graph: GraphBuilder, config: DecoderConfig) -> None:
    """Make `cos_cache` and `sin_cache`, float32 `[max_position_embeddings, head_dim / 2]`.

    They are computed by a few nodes that the runtime folds when it loads, because stored tables
    of 32,768 positions would weigh more than a small model. Float32 throughout, as transformers'
    rotary embedding does it.
    """
    limits = (np.float32(0), np.float32(config.max_position_embeddings), np.float32(1))
    bounds = [
        graph.add_constant(f"rotation.{name}", np.array(value, np.float32))
        for name, value in zip(("first", "end", "step"), limits, strict=True)
    ]
    positions = graph.add_node("Range", bounds, "rotation.positions")
    axis = graph.add_constant("rotation.axis", np.array([1], np.int64))
    column = graph.add_node("Unsqueeze", (positions, axis), "rotation.column")
    inv_freq = graph.add_constant("rotation.inv_freq", config.inv_freq[np.newaxis, :])
    angles = graph.add_node("Mul", (column, inv_freq), "rotation.angles")
    graph.add_node("Cos", (angles,), "cos_cache")
    graph.add_node("Sin", (angles,), "sin_cache")

"""Operators for ONNX Runtime: the `genai` convention with the lengths as direct inputs.

GroupQueryAttention (com.microsoft) rotates, writes keys and values into the cache in place, and
takes rows of different lengths. `seqlens_k` is each row's length after this step, less one;
`total_sequence_length` the longest row's length after this step.
"""

import numpy as np
import onnx
from onnx import TensorProto

from provider_core import ConfigurationError
from provider_export.decoder_config import DecoderConfig
from provider_export.graph_builder import CONTRIB, GraphBuilder
from provider_export.rope import Rope

OPSET = 23  # RMSNormalization
HEAD_DIM_MULTIPLE = 16  # of what GroupQueryAttention's CPU kernel takes, rotated part included


class CpuTarget:
    """Builds with contrib operators that the CPU and CUDA providers have kernels for."""

    def __init__(self, config: DecoderConfig, graph: GraphBuilder) -> None:
        self._config = config
        self._graph = graph

    def declare_inputs(self) -> None:
        """Lengths, caches, and the rotation's tables.

        Raises:
            ConfigurationError: GroupQueryAttention has no kernel for such heads.
        """
        graph, config = self._graph, self._config
        _check_head(config)
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
        here = config.layers[layer]
        self._graph.add_nodes(
            "GroupQueryAttention",
            (query, key, value, *past, *lengths, *rotation_tables(here.rope)),
            (name, *present),
            domain=CONTRIB,
            num_heads=config.num_heads,
            kv_num_heads=config.num_kv_heads,
            do_rotary=1,
            scale=config.attention_scale,
            softcap=config.attention_softcap,
            local_window_size=here.window or -1,
        )
        return name

    def build(self) -> onnx.ModelProto:
        """The finished model."""
        return self._graph.build(opset=OPSET, uses_contrib=True)


def _check_head(config: DecoderConfig) -> None:
    for rope in config.ropes:
        for name, size in (("head_dim", config.head_dim), ("rotated part", rope.rotary_dim)):
            if size % HEAD_DIM_MULTIPLE:
                raise ConfigurationError(
                    f"the {name} of {size} is no multiple of {HEAD_DIM_MULTIPLE}, which the target "
                    "cpu needs; the target tensorrt does not"
                )


def rotation_tables(rope: Rope) -> tuple[str, str]:
    """The names of a rotation's cosines and sines."""
    return f"cos_cache{rope.name}", f"sin_cache{rope.name}"


def add_rotation_tables(graph: GraphBuilder, config: DecoderConfig) -> None:
    """Make each rotation's tables, float32 `[max_position_embeddings, rotary_dim / 2]`.

    They are computed by a few nodes that the runtime folds when it loads, because stored tables
    of 32,768 positions would weigh more than a small model. Float32 throughout, as transformers'
    rotary embedding does it.
    """
    for rope in config.ropes:
        _add_rotation_tables(graph, rope, config.max_position_embeddings)


def _add_rotation_tables(graph: GraphBuilder, rope: Rope, num_positions: int) -> None:
    name = f"rotation{rope.name}"
    limits = (np.float32(0), np.float32(num_positions), np.float32(1))
    bounds = [
        graph.add_constant(f"{name}.{limit}", np.array(value, np.float32))
        for limit, value in zip(("first", "end", "step"), limits, strict=True)
    ]
    positions = graph.add_node("Range", bounds, f"{name}.positions")
    axis = graph.add_constant(f"{name}.axis", np.array([1], np.int64))
    column = graph.add_node("Unsqueeze", (positions, axis), f"{name}.column")
    inv_freq = graph.add_constant(f"{name}.inv_freq", rope.inv_freq[np.newaxis, :])
    angles = graph.add_node("Mul", (column, inv_freq), f"{name}.angles")
    for op_type, table in zip(("Cos", "Sin"), rotation_tables(rope), strict=True):
        if rope.attention_factor == 1:
            graph.add_node(op_type, (angles,), table)
            continue
        factor = graph.add_constant(f"{table}.factor", np.array(rope.attention_factor, np.float32))
        graph.add_node("Mul", (graph.add_node(op_type, (angles,), f"{table}.raw"), factor), table)

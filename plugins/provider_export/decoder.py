"""From a checkpoint to a decoder graph: what the families share, and their forks.

A target (`cpu_target`, `tensorrt_target`) says which operators carry attention, norms and the
cache; everything else is here. Linear weights are `[out, in]` in a checkpoint and `[in, out]` here.

Both targets have the input `num_logits_to_keep` (int64, scalar): logits are made for so many of
each row's last positions only, 0 meaning all, because the head is a quarter of a small model's
work. The name and the meaning of 0 are transformers'.
"""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from provider_core import ConfigurationError
from provider_export.decoder_config import DecoderConfig
from provider_export.graph_builder import GraphBuilder
from provider_export.linear import LinearLayers

TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class WeightSource(Protocol):
    """Named tensors: a checkpoint, or whatever stands in for one."""

    def __contains__(self, name: str) -> bool: ...

    def read(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """One tensor.

        Raises:
            ConfigurationError: There is none of that name and shape.
        """
        ...


class Target(Protocol):
    """The operators one runtime wants."""

    def declare_inputs(self) -> None:
        """Add the inputs beside `input_ids` and `num_logits_to_keep`, caches included."""
        ...

    def norm(self, name: str, x: str, weight: str) -> str:
        """RMS norm over the last axis."""
        ...

    def add_and_norm(self, name: str, x: str, residual: str, weight: str) -> tuple[str, str]:
        """Return `x + residual` and its RMS norm."""
        ...

    def attend(self, layer: int, query: str, key: str, value: str) -> str:
        """Rotate, store keys and values, attend causally.

        Args:
            layer: Counts from 0.
            query: `[batch, sequence, num_heads * head_dim]`.
            key: `[batch, sequence, num_kv_heads * head_dim]`.
            value: As key.

        Returns:
            `[batch, sequence, num_heads * head_dim]`.
        """
        ...

    def build(self) -> onnx.ModelProto:
        """The finished model."""
        ...


class DecoderBuilder:
    """Builds one decoder.

    Args:
        config: Its dimensions.
        checkpoint: Its weights.
        graph: Where nodes go; the target holds the same one.
        target: The runtime's operators.
        linear: How weights are stored; holds the same graph too.
    """

    def __init__(
        self,
        config: DecoderConfig,
        checkpoint: WeightSource,
        graph: GraphBuilder,
        target: Target,
        linear: LinearLayers,
    ) -> None:
        self._config = config
        self._checkpoint = checkpoint
        self._graph = graph
        self._target = target
        self._linear_layers = linear

    def build(self) -> onnx.ModelProto:
        """Read every weight once and make the model.

        Raises:
            ConfigurationError: The checkpoint does not fit its configuration.
        """
        config, graph, target = self._config, self._graph, self._target
        graph.add_input("input_ids", TensorProto.INT64, ("batch_size", "sequence_length"))
        graph.add_input("num_logits_to_keep", TensorProto.INT64, ())
        target.declare_inputs()
        x = self._embed()
        normed = target.norm("layers.0.input_norm", x, self._norm_weight(0, "input_layernorm"))
        before_mlp = (
            "pre_feedforward_layernorm"
            if config.family.has_post_norms
            else "post_attention_layernorm"
        )
        for layer in range(config.num_layers):
            name = f"layers.{layer}"
            attended = self._attention(layer, normed)
            if config.family.has_post_norms:
                weight = self._norm_weight(layer, "post_attention_layernorm")
                attended = target.norm(f"{name}.attention_norm", attended, weight)
            x, normed = target.add_and_norm(
                f"{name}.mlp_norm", attended, x, self._norm_weight(layer, before_mlp)
            )
            moved = self._mlp(layer, normed)
            if config.family.has_post_norms:
                weight = self._norm_weight(layer, "post_feedforward_layernorm")
                moved = target.norm(f"{name}.post_mlp_norm", moved, weight)
            x, normed = target.add_and_norm(
                f"{name}.output_norm", moved, x, self._next_norm_weight(layer)
            )
        self._head(normed)
        return target.build()

    def _embed(self) -> str:
        graph, scale = self._graph, self._config.embedding_scale
        name = "embeddings" if scale == 1 else "embeddings.rows"
        rows = self._linear_layers.add_embedding(name, "input_ids", TABLE, self._read_table(TABLE))
        if scale == 1:
            return rows
        factor = graph.add_floats("embeddings.scale", np.array(scale, np.float32))
        return graph.add_node("Mul", (rows, factor), "embeddings")

    def _attention(self, layer: int, x: str) -> str:
        config, name = self._config, f"layers.{layer}.attention"
        q_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        prefix = f"model.layers.{layer}.self_attn"
        parts = {
            f"{prefix}.q_proj": q_size,
            f"{prefix}.k_proj": kv_size,
            f"{prefix}.v_proj": kv_size,
        }
        if config.family.has_fused_projections:
            parts = {f"{prefix}.qkv_proj": q_size + 2 * kv_size}
        packed = self._linear(
            f"{name}.qkv", x, config.hidden_size, parts, has_bias=config.has_qkv_bias
        )
        query, key, value = (f"{name}.{part}" for part in ("query", "key", "value"))
        sizes = self._graph.add_constant(
            f"{name}.sizes", np.array([q_size, kv_size, kv_size], np.int64)
        )
        self._graph.add_nodes("Split", (packed, sizes), (query, key, value), axis=-1)
        if config.family.has_qk_norm:
            query = self._head_norm(query, f"{prefix}.q_norm.weight", config.num_heads)
            key = self._head_norm(key, f"{prefix}.k_norm.weight", config.num_kv_heads)
        attended = self._target.attend(layer, query, key, value)
        parts = {f"{prefix}.o_proj": config.hidden_size}
        return self._linear(
            f"{name}.output", attended, q_size, parts, has_bias=config.has_output_bias
        )

    def _head_norm(self, x: str, weight_name: str, num_heads: int) -> str:
        graph, head_dim = self._graph, self._config.head_dim
        weight = self._norm_vector(weight_name, head_dim)
        heads = graph.add_constant(f"{x}.heads", np.array([0, 0, num_heads, head_dim], np.int64))
        whole = graph.add_constant(f"{x}.whole", np.array([0, 0, num_heads * head_dim], np.int64))
        split = graph.add_node("Reshape", (x, heads), f"{x}.split")
        normed = self._target.norm(f"{x}.norm", split, weight)
        return graph.add_node("Reshape", (normed, whole), f"{x}.normed")

    def _mlp(self, layer: int, x: str) -> str:
        config, graph, name = self._config, self._graph, f"layers.{layer}.mlp"
        prefix, inner = f"model.layers.{layer}.mlp", config.intermediate_size
        hidden, has_bias = config.hidden_size, config.has_mlp_bias
        gate, up = f"{name}.gate", f"{name}.up"
        if config.family.has_fused_projections:
            parts = {f"{prefix}.gate_up_proj": 2 * inner}
            packed = self._linear(f"{name}.gate_up", x, hidden, parts)
            graph.add_nodes("Split", (packed,), (gate, up), axis=-1, num_outputs=2)
        else:
            self._linear(gate, x, hidden, {f"{prefix}.gate_proj": inner}, has_bias=has_bias)
            self._linear(up, x, hidden, {f"{prefix}.up_proj": inner}, has_bias=has_bias)
        gated = graph.add_node("Mul", (self._activate(gate), up), f"{name}.gated")
        parts = {f"{prefix}.down_proj": hidden}
        return self._linear(f"{name}.down", gated, inner, parts, has_bias=has_bias)

    def _activate(self, gate: str) -> str:
        graph = self._graph
        if self._config.activation == "gelu_pytorch_tanh":
            return graph.add_node("Gelu", (gate,), f"{gate}.gelu", approximate="tanh")
        sigmoid = graph.add_node("Sigmoid", (gate,), f"{gate}.sigmoid")
        return graph.add_node("Mul", (gate, sigmoid), f"{gate}.silu")

    def _linear(
        self, name: str, x: str, in_size: int, parts: dict[str, int], *, has_bias: bool = False
    ) -> str:
        """One MatMul for several projections of the same input, by name and output size."""
        weights = [
            self._checkpoint.read(f"{part}.weight", (size, in_size)) for part, size in parts.items()
        ]
        weight = np.concatenate(weights) if len(weights) > 1 else weights[0]
        if not has_bias:
            self._refuse_biases(parts)
            return self._linear_layers.add_linear(name, x, weight.T)
        biases = [self._checkpoint.read(f"{part}.bias", (size,)) for part, size in parts.items()]
        return self._linear_layers.add_linear(name, x, weight.T, np.concatenate(biases))

    def _refuse_biases(self, parts: Iterable[str]) -> None:
        for part in parts:
            if f"{part}.bias" in self._checkpoint:
                raise ConfigurationError(
                    f"the checkpoint has {part}.bias, which config.json says nothing of "
                    "(attention_bias, mlp_bias)"
                )

    def _head(self, x: str) -> None:
        config, graph = self._config, self._graph
        one = graph.add_constant("head.one", np.array([1], np.int64))
        zero = graph.add_constant("head.zero", np.array([0], np.int64))
        # ONNX Runtime leaves arithmetic on shapes to the host, and puts any other on the GPU: the
        # number would come back for Slice in every step, which no CUDA graph can hold.
        length = graph.add_node("Shape", (x,), "head.length", start=1, end=2)
        none = graph.add_node("Mul", (length, zero), "head.none")
        starts = graph.add_node("Sub", (none, "num_logits_to_keep"), "head.starts")
        end = graph.add_constant("head.end", np.array([np.iinfo(np.int64).max], np.int64))
        kept = graph.add_node("Slice", (x, starts, end, one), "head.kept")
        is_float32 = graph.float_type == TensorProto.FLOAT
        name = "logits" if is_float32 else "head.logits"
        if config.logits_softcap:
            self._project_softly(name, kept)
        else:
            self._project(name, kept)
        if not is_float32:
            graph.add_node("Cast", (name,), "logits", to=TensorProto.FLOAT)
        graph.add_output(
            "logits", TensorProto.FLOAT, ("batch_size", "num_logits", config.vocab_size)
        )

    def _project(self, name: str, x: str) -> str:
        is_tied = self._config.tie_word_embeddings or HEAD not in self._checkpoint
        if is_tied and self._linear_layers.shares_tables:
            return self._linear_layers.add_tied_linear(name, x, TABLE)
        weight = self._read_table(TABLE if is_tied else HEAD)
        return self._linear_layers.add_linear(name, x, weight.T)

    def _project_softly(self, name: str, x: str) -> None:
        """Logits `c * tanh(x @ weight / c)`; the division is done where it is cheap."""
        graph, cap = self._graph, np.float32(self._config.logits_softcap)
        inverse = graph.add_floats("head.inverse_cap", np.array(1 / cap))
        shrunk = graph.add_node("Mul", (x, inverse), "head.shrunk")
        product = self._project("head.product", shrunk)
        squashed = graph.add_node("Tanh", (product,), "head.squashed")
        graph.add_node("Mul", (squashed, graph.add_floats("head.cap", np.array(cap))), name)

    def _read_table(self, name: str) -> npt.NDArray[np.float32]:
        return self._checkpoint.read(name, (self._config.vocab_size, self._config.hidden_size))

    def _norm_weight(self, layer: int, which: str) -> str:
        name = f"model.layers.{layer}.{which}.weight"
        return self._norm_vector(name, self._config.hidden_size)

    def _next_norm_weight(self, layer: int) -> str:
        if layer + 1 < self._config.num_layers:
            return self._norm_weight(layer + 1, "input_layernorm")
        return self._norm_vector("model.norm.weight", self._config.hidden_size)

    def _norm_vector(self, name: str, size: int) -> str:
        weight = self._checkpoint.read(name, (size,)) + np.float32(self._config.family.norm_offset)
        return self._graph.add_floats(name, weight)

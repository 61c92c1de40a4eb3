"""Decoder graphs as other exporters write them, built on our exporter's layers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from provider_export.checkpoint import Checkpoint
from provider_export.cpu_target import OPSET, CpuTarget, add_rotation_tables
from provider_export.decoder import DecoderBuilder, Target
from provider_export.decoder_config import DecoderConfig, read_config
from provider_export.external_data import ExternalData
from provider_export.graph_builder import GraphBuilder
from provider_export.linear import LinearLayers
from provider_export.weight_formats import FloatFormat


def write_variant(
    checkpoint: Path,
    folder: Path,
    make_target: Callable[[DecoderConfig, GraphBuilder], Target],
    *,
    keeps_all_logits: bool = False,
    has_half_logits: bool = False,
) -> Path:
    """Write `model.onnx` and config.json.

    Args:
        checkpoint: A Hugging Face folder.
        folder: Made if it is missing.
        make_target: The variant.
        keeps_all_logits: Leave out the input `num_logits_to_keep`, and what it does.
        has_half_logits: Give the logits as float16.
    """
    config, graph = read_config(checkpoint), GraphBuilder(ExternalData())
    target, stored = make_target(config, graph), FloatFormat(np.float32)
    linear = LinearLayers(graph, matrices=stored, tables=stored)
    model = DecoderBuilder(config, Checkpoint(checkpoint), graph, target, linear).build()
    if keeps_all_logits:
        make_all_logits(model)
    if has_half_logits:
        halve_logits(model)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, folder / "model.onnx")
    shutil.copyfile(checkpoint / "config.json", folder / "config.json")
    return folder


def make_all_logits(model: onnx.ModelProto) -> None:
    """Project every position, as other exporters do."""
    graph = model.graph
    made = {node.output[0]: node for node in graph.node}
    rows = made["head.kept"].input[0]
    [head] = [node for node in graph.node if "head.kept" in node.input]
    head.input[0] = rows
    for name in ("head.length", "head.none", "head.starts", "head.kept"):
        graph.node.remove(made[name])
    [info] = [info for info in graph.input if info.name == "num_logits_to_keep"]
    graph.input.remove(info)


def halve_logits(model: onnx.ModelProto) -> None:
    """Cast the logits to float16 at the end."""
    [head] = [node for node in model.graph.node if "logits" in node.output]
    head.output[:] = ["logits.fp32"]
    cast = helper.make_node("Cast", ["logits.fp32"], ["logits"], to=TensorProto.FLOAT16)
    model.graph.node.append(cast)
    [info] = [info for info in model.graph.output if info.name == "logits"]
    info.type.tensor_type.elem_type = TensorProto.FLOAT16


class HalfGenaiTarget(CpuTarget):
    """The `genai` convention in float16, as the builder writes it for CUDA."""

    def build(self) -> onnx.ModelProto:
        """Every float32 becomes a float16, once the rotation's tables are made."""
        model = super().build()
        graph = model.graph
        for weight in graph.initializer:
            if weight.data_type == TensorProto.FLOAT and not weight.name.startswith("rotation"):
                values = numpy_helper.to_array(weight).astype(np.float16)
                weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        for info in (*graph.input, *graph.output):
            if info.type.tensor_type.elem_type == TensorProto.FLOAT:
                info.type.tensor_type.elem_type = TensorProto.FLOAT16
        for place, node in reversed(list(enumerate(graph.node))):
            if node.op_type == "GroupQueryAttention":
                for table in (7, 8):
                    whole, half = node.input[table], f"{node.name}.{table}"
                    node.input[table] = half
                    cast = helper.make_node("Cast", [whole], [half], to=TensorProto.FLOAT16)
                    graph.node.insert(place, cast)
        return model


class MaskedGenaiTarget(CpuTarget):
    """The `genai` convention as onnxruntime-genai's builder writes it: lengths out of a mask."""

    def declare_inputs(self) -> None:
        """`attention_mask` in place of the lengths."""
        super().declare_inputs()
        graph = self._graph
        graph.add_input("attention_mask", TensorProto.INT64, ("batch_size", "total_length"))
        axis = graph.add_constant("mask.axis", np.array([1], np.int64))
        counts = graph.add_node("ReduceSum", ("attention_mask", axis), "mask.counts", keepdims=0)
        one = graph.add_constant("mask.one", np.array(1, np.int64))
        last = graph.add_node("Sub", (counts, one), "mask.last")
        graph.add_node("Cast", (last,), "seqlens_k", to=TensorProto.INT32)
        length = graph.add_node("Shape", ("attention_mask",), "mask.length", start=1, end=2)
        scalar = graph.add_constant("mask.scalar", np.array([], np.int64))
        total = graph.add_node("Reshape", (length, scalar), "mask.total")
        graph.add_node("Cast", (total,), "total_sequence_length", to=TensorProto.INT32)

    def build(self) -> onnx.ModelProto:
        """Drop the inputs that are computed now."""
        model = super().build()
        computed = {"seqlens_k", "total_sequence_length"}
        kept = [info for info in model.graph.input if info.name not in computed]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        for info in (*model.graph.input, *model.graph.output):
            dimensions = info.type.tensor_type.shape.dim
            if len(dimensions) == 4:
                dimensions[3].dim_param = "kv_cache_dim"  # as the builder leaves it
        return model


class GrowingTarget:
    """The `optimum` convention: Concat behind the past, a mask from `attention_mask`.

    Args:
        config: The decoder's dimensions.
        graph: Where nodes go.
        cache_type: TensorProto's dtype of the caches.
        has_branch: Add `use_cache_branch`; while it is false, the past is ignored.
        has_positions: Add `position_ids`; without it, positions count from the past's length.
    """

    def __init__(
        self,
        config: DecoderConfig,
        graph: GraphBuilder,
        *,
        cache_type: int = TensorProto.FLOAT,
        has_branch: bool = False,
        has_positions: bool = True,
    ) -> None:
        self._config = config
        self._graph = graph
        self._cache_type = cache_type
        self._has_branch = has_branch
        self._has_positions = has_positions

    def declare_inputs(self) -> None:
        """Mask, positions, caches, and what all layers share."""
        graph, config = self._graph, self._config
        graph.add_input("attention_mask", TensorProto.INT64, ("batch_size", "total_length"))
        if self._has_branch:
            graph.add_input("use_cache_branch", TensorProto.BOOL, (1,))
        past = ("batch_size", config.num_kv_heads, "past_length", config.head_dim)
        present = ("batch_size", config.num_kv_heads, "total_length", config.head_dim)
        for layer in range(config.num_layers):
            for part in ("key", "value"):
                graph.add_input(f"past_key_values.{layer}.{part}", self._cache_type, past)
                graph.add_output(f"present.{layer}.{part}", self._cache_type, present)
        add_rotation_tables(graph, config)
        self._add_positions()
        self._add_mask()

    def _add_positions(self) -> None:
        """`key_index` of every column, `query_index` of the new ones, `position_ids`."""
        graph = self._graph
        for name, value in (("zero", 0), ("one", 1)):
            graph.add_constant(f"index.{name}", np.array(value, np.int64))
        scalar = graph.add_constant("index.scalar", np.array([], np.int64))
        for name, source in (("total", "attention_mask"), ("new", "input_ids")):
            length = graph.add_node("Shape", (source,), f"index.{name}_length", start=1, end=2)
            graph.add_node("Reshape", (length, scalar), f"index.{name}")
        first = graph.add_node("Sub", ("index.total", "index.new"), "index.first")
        graph.add_node("Range", ("index.zero", "index.total", "index.one"), "key_index")
        graph.add_node("Range", (first, "index.total", "index.one"), "query_index")
        if self._has_positions:
            graph.add_input("position_ids", TensorProto.INT64, ("batch_size", "sequence_length"))
            return
        zeros = graph.add_node("Mul", ("input_ids", "index.zero"), "index.zeros")
        graph.add_node("Add", (zeros, "query_index"), "position_ids")

    def _add_mask(self) -> None:
        """`mask`, 0 or -inf: `[batch, 1, new, total]`."""
        graph = self._graph
        axis = graph.add_constant("mask.query_axis", np.array([1], np.int64))
        queries = graph.add_node("Unsqueeze", ("query_index", axis), "mask.queries")
        causal = graph.add_node("LessOrEqual", ("key_index", queries), "mask.causal")
        held = graph.add_node("Cast", ("attention_mask",), "mask.held", to=TensorProto.BOOL)
        axes = graph.add_constant("mask.axes", np.array([1, 2], np.int64))
        columns = graph.add_node("Unsqueeze", (held, axes), "mask.columns")
        seen = graph.add_node("And", (causal, columns), "mask.seen")
        bias = (("yes", 0.0), ("no", float(np.finfo(np.float32).min)))
        yes, no = (graph.add_constant(f"mask.{n}", np.array(v, np.float32)) for n, v in bias)
        graph.add_node("Where", (seen, yes, no), "mask")

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
        """Plain attention with repeated heads."""
        config, graph, name = self._config, self._graph, f"layers.{layer}.attention"
        queries = self._by_head(self._rotate(query, config.num_heads), config.num_heads)
        key = self._rotate(key, config.num_kv_heads)
        keys = self._repeat(self._grow(layer, "key", self._by_head(key, config.num_kv_heads)))
        values = self._repeat(self._grow(layer, "value", self._by_head(value, config.num_kv_heads)))
        turned = graph.add_node("Transpose", (keys,), f"{name}.turned", perm=(0, 1, 3, 2))
        products = graph.add_node("MatMul", (queries, turned), f"{name}.products")
        scale = graph.add_constant(f"{name}.scale", np.array(config.head_dim**-0.5, np.float32))
        scaled = graph.add_node("Mul", (products, scale), f"{name}.scaled")
        masked = graph.add_node("Add", (scaled, "mask"), f"{name}.masked")
        weights = graph.add_node("Softmax", (masked,), f"{name}.weights", axis=-1)
        heads = graph.add_node("MatMul", (weights, values), f"{name}.heads")
        rows = graph.add_node("Transpose", (heads,), f"{name}.rows", perm=(0, 2, 1, 3))
        shape = np.array([0, 0, config.num_heads * config.head_dim], np.int64)
        return graph.add_node("Reshape", (rows, graph.add_constant(f"{name}.whole", shape)), name)

    def _grow(self, layer: int, part: str, new: str) -> str:
        graph, name = self._graph, f"layers.{layer}.{part}"
        past = f"past_key_values.{layer}.{part}"
        if self._has_branch:
            past = self._choose(past, f"{name}.past")
        if self._cache_type != TensorProto.FLOAT:
            past = graph.add_node("Cast", (past,), f"{name}.past32", to=TensorProto.FLOAT)
        grown = graph.add_node("Concat", (past, new), f"{name}.grown", axis=2)
        graph.add_node("Cast", (grown,), f"present.{layer}.{part}", to=self._cache_type)
        return grown

    def _choose(self, past: str, name: str) -> str:
        """The past, or nothing of it."""
        graph, zero = self._graph, f"{name}.zero"
        for constant, value in ((zero, 0), (f"{name}.axis", 2)):
            graph.add_constant(constant, np.array([value], np.int64))
        branches = {
            "then_branch": helper.make_node("Identity", [past], [f"{name}.all"]),
            "else_branch": helper.make_node(
                "Slice", [past, zero, zero, f"{name}.axis"], [f"{name}.none"]
            ),
        }
        graphs = {
            branch: helper.make_graph(
                [node],
                branch,
                [],
                [helper.make_tensor_value_info(node.output[0], self._cache_type, [None] * 4)],
            )
            for branch, node in branches.items()
        }
        return graph.add_node("If", ("use_cache_branch",), name, **graphs)

    def _repeat(self, x: str) -> str:
        """Each key-value head once for every query head of its group."""
        graph, config = self._graph, self._config
        index = np.arange(config.num_heads) // (config.num_heads // config.num_kv_heads)
        heads = graph.add_constant(f"{x}.groups", index.astype(np.int64))
        return graph.add_node("Gather", (x, heads), f"{x}.repeated", axis=1)

    def _rotate(self, x: str, num_heads: int) -> str:
        return self._graph.add_node(
            "RotaryEmbedding",
            (x, "cos_cache", "sin_cache", "position_ids"),
            f"{x}.rotated",
            num_heads=num_heads,
        )

    def _by_head(self, x: str, num_heads: int) -> str:
        graph = self._graph
        shape = np.array([0, 0, num_heads, self._config.head_dim], np.int64)
        split = graph.add_node(
            "Reshape", (x, graph.add_constant(f"{x}.shape", shape)), f"{x}.split"
        )
        return graph.add_node("Transpose", (split,), f"{x}.by_head", perm=(0, 2, 1, 3))

    def build(self) -> onnx.ModelProto:
        """The finished model."""
        return self._graph.build(opset=OPSET, uses_contrib=False)

"""The same decoder for mixed calls: tokens of one prompt and, behind them, rows that decode.

GroupQueryAttention takes several new tokens of one sequence, or one of each of many. Everything
else in a decoder treats tokens one by one. So all of them run through the graph as one long row,
which is cut for attention: one node for the prompt with its slot, another for the rows with theirs.
Inputs and outputs of the second are named like the first's, behind `DECODE`. Weights are those
of the graph it is made of, in the same file.
"""

from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from provider_core.decoder_io import DecoderIO
from provider_onnxruntime.mixed_decoder import DECODE

_ATTENTION = "GroupQueryAttention"
_SIZES = "mixed.sizes"  # of the prompt and of the rows, in tokens
_TOKENS_APART = slice(9, 11)  # inputs of the attention with positions or biases of each token
_ROLES = {"input_ids", "num_logits_to_keep", "seqlens_k", "total_sequence_length"}


def write_mixed_graph(source: Path, target: Path, io: DecoderIO) -> bool:
    """Write a decoder for mixed calls, if it is one that can be split; say whether it is.

    Args:
        source: A decoder whose data, if it has any, is in a file beside it.
        target: In the same folder.
        io: The source's inputs and outputs.
    """
    model = onnx.load(source, load_external_data=False)
    graph = model.graph
    attentions = [node for node in graph.node if node.op_type == _ATTENTION]
    if set(io.inputs) != _ROLES or 2 * len(attentions) != len(io.caches):
        return False
    if any(any(node.input[_TOKENS_APART]) or len(node.output) != 3 for node in attentions):
        return False
    nodes = _count_tokens(io)
    for node in graph.node:
        nodes += _split(node) if node.op_type == _ATTENTION else [node]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    graph.ClearField("node")
    graph.node.extend(copies)
    graph.ClearField("value_info")
    lengths = [io.inputs[role].name for role in ("seqlens_k", "total_sequence_length")]
    _declare(graph.input, [*lengths, *(cache.past for cache in io.caches)])
    _declare(graph.output, [cache.present for cache in io.caches])
    target.write_bytes(model.SerializeToString())
    return True


def _count_tokens(io: DecoderIO) -> list[onnx.NodeProto]:
    """Nodes that find out how many tokens are the prompt's: all but one for each row."""
    rows = DECODE + io.inputs["seqlens_k"].name
    return [
        helper.make_node("Shape", [rows], ["mixed.rows"], "mixed.rows"),
        helper.make_node(
            "Shape", [io.inputs["input_ids"].name], ["mixed.tokens"], "mixed.tokens", start=1
        ),
        helper.make_node("Sub", ["mixed.tokens", "mixed.rows"], ["mixed.prompt"], "mixed.prompt"),
        helper.make_node("Concat", ["mixed.prompt", "mixed.rows"], [_SIZES], _SIZES, axis=0),
    ]


def _split(attention: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Two attentions in place of one, and what cuts and joins `[1, tokens, size]`."""
    projected, stored = attention.input[:3], attention.input[3:7]
    output, *presents = attention.output
    nodes, prompt, rows = [], [], []
    for name in projected:
        prompt.append(f"{name}.prompt" if name else "")  # queries, keys and values may be packed
        rows.append(f"{name}.rows" if name else "")
        if name:
            nodes += [
                _node("Split", [name, _SIZES], [prompt[-1], f"{name}.row"], axis=1),
                _node("Transpose", [f"{name}.row"], [rows[-1]], perm=[1, 0, 2]),
            ]
    for inputs, cache, out, prefix in (
        (prompt, stored, f"{output}.prompt", ""),
        (rows, [DECODE + name for name in stored], f"{output}.rows", DECODE),
    ):
        half = onnx.NodeProto()
        half.CopyFrom(attention)
        half.name = prefix + attention.name
        half.input[:7] = [*inputs, *cache]
        half.output[:] = [out, *(prefix + name for name in presents)]
        nodes.append(half)
    return [
        *nodes,
        _node("Transpose", [f"{output}.rows"], [f"{output}.row"], perm=[1, 0, 2]),
        _node("Concat", [f"{output}.prompt", f"{output}.row"], [output], axis=1),
    ]


def _declare(values: list[onnx.ValueInfoProto], names: list[str]) -> None:
    """Declare the decode's counterparts of inputs or outputs, with its own number of rows."""
    for value in [value for value in values if value.name in names]:
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(value)
        copy.name = DECODE + value.name
        for dim in copy.type.tensor_type.shape.dim[:1]:
            dim.dim_param = "decode_rows"
        values.append(copy)


def _node(op_type: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, outputs, name=f"mixed.{outputs[-1]}", **attributes)

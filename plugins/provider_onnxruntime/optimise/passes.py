"""Changes to a graph that keep what it computes, each for one pattern that exporters write.

A pass returns whether it changed something, and leaves alone what it does not know. None adds the
highest logits and their log-sum-exp to the outputs: TopK and ReduceLogSumExp over 152k logits take
0.7 ms for one row and more than 10 ms for eight, what numpy needs of them a tenth of that.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper

from provider_onnxruntime.optimise.graph import ModelGraph, names_read

MASK, SEQLENS, TOTAL_LENGTH = "attention_mask", "seqlens_k", "total_sequence_length"
NUM_LOGITS = "num_logits_to_keep"
LENGTH_INPUTS = slice(5, 7)  # of GroupQueryAttention
LINEAR = frozenset({"MatMul", "MatMulNBits"})
BIAS_INPUT = 5  # of MatMulNBits
ELEMENTWISE = frozenset({"Add", "Cast", "Div", "Identity", "Mul", "Tanh"})
"""What may stand between the head and the logits: it keeps rows apart."""


def feed_lengths(graph: ModelGraph) -> bool:
    """Take lengths as inputs, where the graph counts them out of an attention mask.

    GroupQueryAttention wants each row's length, less one, and the longest length; genai's builder
    gets them by summing a mask that has to be made anew for each step.
    """
    attentions = [node for node in graph.nodes if node.op_type == "GroupQueryAttention"]
    lengths = {tuple(node.input[LENGTH_INPUTS]) for node in attentions}
    taken = {SEQLENS, TOTAL_LENGTH} & graph.names()
    if MASK not in graph.input_names or len(lengths) != 1 or taken:
        return False
    [names] = lengths
    if any(inputs_behind(graph, name) != {MASK} for name in names):
        return False
    graph.add_input(SEQLENS, TensorProto.INT32, ["batch_size"])
    graph.add_input(TOTAL_LENGTH, TensorProto.INT32, [])
    for node in attentions:
        node.input[5], node.input[6] = SEQLENS, TOTAL_LENGTH
    graph.remove_unused_nodes()
    if not graph.consumers(MASK):
        graph.remove_input(MASK)
    return True


def inputs_behind(graph: ModelGraph, name: str) -> set[str]:
    """The graph's inputs that a value depends on."""
    inputs = set(graph.input_names)
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        value = waiting.pop()
        node = graph.producer(value)
        if value not in seen and node is not None:
            waiting += names_read(node)
        seen.add(value)
    return seen & inputs


def keep_wanted_rows(graph: ModelGraph, logits: str) -> bool:
    """Make logits only of as many last positions as a new input says, 0 meaning all.

    Args:
        graph: Of which the head is the last product with a constant matrix.
        logits: Name of the output.
    """
    if NUM_LOGITS in graph.names():
        return False
    head = _find_head(graph, logits)
    _, shape = graph.output_type(logits)
    if head is None or len(shape) != 3:
        return False
    one = graph.add_constant("wanted_rows.one", np.array([1], np.int64))
    end = graph.add_constant("wanted_rows.end", np.array([np.iinfo(np.int64).max], np.int64))
    graph.add_input(NUM_LOGITS, TensorProto.INT64, [])
    nodes = [
        helper.make_node("Neg", [NUM_LOGITS], ["wanted_rows.start"], "wanted_rows.start"),
        helper.make_node(
            "Reshape", ["wanted_rows.start", one], ["wanted_rows.starts"], "wanted_rows.starts"
        ),
        # Of axis 1: the third input is the end, the fourth the axis.
        helper.make_node(
            "Slice",
            [head.input[0], "wanted_rows.starts", end, one],
            ["wanted_rows.kept"],
            "wanted_rows.kept",
        ),
    ]
    head.input[0] = "wanted_rows.kept"
    graph.replace(head, [*nodes, head])
    graph.set_output_shape(logits, [shape[0], "num_logits", shape[2]])
    return True


def _find_head(graph: ModelGraph, logits: str) -> onnx.NodeProto | None:
    """The product that the logits are made of, row by row; none if something else stands there."""
    name = logits
    while (node := graph.producer(name)) is not None:
        if len(graph.consumers(name)) != (name != logits):
            return None  # somebody else wants all rows
        if node.op_type in LINEAR:
            return None if inputs_behind(graph, node.input[1]) else node
        varying = [value for value in node.input if inputs_behind(graph, value)]
        if node.op_type not in ELEMENTWISE or len(varying) != 1:
            return None
        [name] = varying
    return None


def fold_biases(graph: ModelGraph) -> bool:
    """Let MatMulNBits add the bias, where an Add behind it does."""
    has_changed = False
    for add in [node for node in graph.nodes if node.op_type == "Add"]:
        for name, bias in (add.input, add.input[::-1]):
            product = graph.producer(name)
            if product is not None and _takes_bias(graph, product, bias):
                product.input.extend([""] * (BIAS_INPUT - len(product.input)) + [bias])
                graph.replace(add, [])
                product.output[0] = add.output[0]
                graph.replace(product, [product])
                has_changed = True
                break
    return has_changed


def _takes_bias(graph: ModelGraph, node: onnx.NodeProto, bias: str) -> bool:
    size = next((item.i for item in node.attribute if item.name == "N"), 0)
    return (
        node.op_type == "MatMulNBits"
        and not any(node.input[BIAS_INPUT:])
        and graph.constant_shape(bias) == (size,)
        and len(graph.consumers(node.output[0])) == 1
        and node.output[0] not in graph.output_names
    )

"""Embedding tables: only the rows that are read need to be in memory."""

from onnx import helper

from provider_onnxruntime.optimise.graph import ModelGraph


def gather_before_cast(graph: ModelGraph) -> bool:
    """Cast the rows that are gathered, where a whole table of constants is cast.

    The runtime folds the Cast of a constant when it loads: a table in float16 would be in memory
    as float32, whole, and once more for each weight set. Left as it is, it is mapped from its file.
    """
    has_changed = False
    for node in [node for node in graph.nodes if node.op_type == "Gather"]:
        cast = graph.producer(node.input[0])
        if cast is None or cast.op_type != "Cast" or graph.constant_shape(cast.input[0]) is None:
            continue
        [name] = node.output
        stored = f"{name}.stored"
        gather = helper.make_node("Gather", [cast.input[0], node.input[1]], [stored], stored)
        gather.attribute.extend(node.attribute)
        rows = helper.make_node("Cast", [stored], [name], name)
        rows.attribute.extend(cast.attribute)
        graph.replace(node, [gather, rows])
        has_changed = True
    return has_changed

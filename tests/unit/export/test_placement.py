"""Where ONNX Runtime on CUDA puts a decoder's nodes: nothing is copied between GPU and host.

A graph with copies is not captured as a CUDA graph. The rules are those of ONNX Runtime's
`fallback_cpu_capability.cc`: what depends on shapes, small constants and inputs of the graph alone
is computed on the host, unless its kernel on the GPU takes such inputs from the host.
"""

from pathlib import Path

import onnx
import pytest

from provider_export.export import export_decoder
from tests.tiny_checkpoints import FAMILIES, write_checkpoint

SMALL = 100  # elements
HOST_INPUTS = {
    "Expand": {1},
    "Range": {0, 1, 2},
    "Reshape": {1},
    "Slice": {1, 2, 3, 4},
    "Unsqueeze": {1},
}
"""Which inputs kernels on the GPU take from the host's memory; all others from the GPU's."""


def count_elements(tensor: onnx.TensorProto) -> int:
    """Of a weight."""
    count = 1
    for dim in tensor.dims:
        count *= dim
    return count


def find_copies(graph: onnx.GraphProto) -> set[str]:
    """Values that would be copied from the GPU to the host, or back."""
    small = {w.name for w in graph.initializer if count_elements(w) <= SMALL}
    weights = {w.name for w in graph.initializer}
    inputs = {value.name for value in graph.input}
    on_host: set[str] = set()
    host_nodes: list[onnx.NodeProto] = []
    for node in graph.node:  # in topological order
        host_inputs = HOST_INPUTS.get(node.op_type, set())
        if node.op_type == "Shape":
            on_host.update(node.output)
        elif on_host & set(node.input) and all(
            name in small | inputs or (name in on_host and place not in host_inputs)
            for place, name in enumerate(node.input)
        ):
            host_nodes.append(node)
            on_host.update(node.output)
    host_outputs = {name for node in host_nodes for name in node.output}
    wanted: dict[str, set[bool]] = {}
    for node in graph.node:
        if node.op_type == "Shape":
            continue
        for place, name in enumerate(node.input):
            is_of_host = bool(host_outputs & set(node.output)) or (
                place in HOST_INPUTS.get(node.op_type, set())
            )
            wanted.setdefault(name, set()).add(is_of_host)
    return {
        name
        for name, places in wanted.items()
        if name not in weights
        and (len(places) > 1 if name in inputs else places != {name in on_host})
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoder_for_gpus_copies_nothing(family: str, tmp_path: Path) -> None:
    """Each family's graph can be captured."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint", family)
    path = export_decoder(checkpoint, tmp_path / "out", target="tensorrt", activations="fp16")

    assert find_copies(onnx.load(path).graph) == set()


def test_a_number_that_is_turned_round_on_the_gpu_is_copied(tmp_path: Path) -> None:
    """The head as it was at first: this test would see it."""
    path = export_decoder(write_checkpoint(tmp_path), tmp_path / "out", target="tensorrt")
    model = onnx.load(path)
    [start] = [node for node in model.graph.node if node.output[0] == "head.starts"]
    turned = onnx.helper.make_node("Neg", ["num_logits_to_keep"], ["turned"])
    shaped = onnx.helper.make_node("Reshape", ["turned", "head.one"], ["head.starts"])
    place = list(model.graph.node).index(start)
    model.graph.node.remove(start)
    model.graph.node.insert(place, shaped)
    model.graph.node.insert(place, turned)

    assert find_copies(model.graph) == {"head.starts"}

"""A model in memory that passes can read and change."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

CONTRIB = "com.microsoft"
MIN_EXTERNAL_BYTES = 1024


class ModelGraph:
    """A graph and its initializers by name.

    Args:
        model: Changed when it is saved only.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self.nodes = list(model.graph.node)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._producers = {name: node for node in self.nodes for name in node.output if name}

    @classmethod
    def load(cls, path: Path) -> "ModelGraph":
        """Read a model and its external data."""
        return cls(onnx.load(path))

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return max(
            int(item.version) for item in self._model.opset_import if item.domain in ONNX_DOMAINS
        )

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a value; none for inputs and initializers."""
        return self._producers.get(name)

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """An initializer's value."""
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def add_constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Store an initializer; return its name."""
        self._constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def replace(self, node: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> None:
        """Put nodes where one was."""
        index = next(i for i, other in enumerate(self.nodes) if other is node)
        self.nodes[index : index + 1] = nodes
        for name in node.output:
            self._producers.pop(name, None)
        self._producers |= {name: new for new in nodes for name in new.output}

    def save(self, path: Path) -> None:
        """Write what the outputs need, weights beside the file."""
        graph = self._model.graph
        used = {item.name for item in graph.output}
        kept: list[onnx.NodeProto] = []
        for node in reversed(self.nodes):  # consumers stand behind producers
            if used.intersection(node.output):
                kept.append(node)
                used |= set(_reads(node))
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
        constants = [tensor for name, tensor in self._constants.items() if name in used]
        for field, items in (("node", nodes), ("initializer", constants), ("value_info", [])):
            graph.ClearField(field)
            getattr(graph, field).extend(items)
        if all(item.domain != CONTRIB for item in self._model.opset_import):
            self._model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
        onnx.save_model(
            self._model,
            path,
            save_as_external_data=True,
            location=f"{path.name}.data",
            size_threshold=MIN_EXTERNAL_BYTES,
        )


ONNX_DOMAINS = frozenset({"", "ai.onnx"})


def _reads(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, those in its branches included."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names += [name for inner in graph.node for name in _reads(inner)]
            names += [item.name for item in graph.output]
    return names

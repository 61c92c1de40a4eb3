"""A model's graph as passes see it: nodes in order, who makes what, and weights that stay on disk.

A weight is read when a pass asks for it and written when a pass makes it, so that a model of any
size is rewritten in the memory of its largest weight.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
CONTRIB = "com.microsoft"
MIN_EXTERNAL_BYTES = 1024  # smaller ones stay in the file: shapes and indices, for folding
ALIGNMENT = 4096  # pages: a runtime can map a weight where it lies
COPY_BYTES = 2**24


class ModelGraph:
    """One model, read from `source`, to be written as `target`. Use it in a `with` statement.

    Args:
        source: The model, of which the skeleton is read.
        target: What `save` writes. Large weights go to a file beside it, of the same name and
            `.data`; those that a pass adds go there at once.

    Attributes:
        nodes: In an order in which they run. To change them there are methods.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self._model = onnx.load(source, load_external_data=False)
        self._folder = source.parent
        self._target = target
        self._data_path = target.with_name(f"{target.name}.data")
        self._data: BinaryIO | None = None
        self._stored: set[str] = set()  # constants whose bytes are in the target's data
        graph = self._model.graph
        self.nodes = list(graph.node)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {name: node for node in self.nodes for name in node.output if name}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._data is not None:
            self._data.close()

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return max(
            int(item.version)
            for item in self._model.opset_import
            if item.domain in STANDARD_DOMAINS
        )

    @property
    def input_names(self) -> list[str]:
        """What whoever runs the graph must give."""
        return [item.name for item in self._model.graph.input if item.name not in self._constants]

    @property
    def output_names(self) -> list[str]:
        """What it gives."""
        return [item.name for item in self._model.graph.output]

    def names(self) -> set[str]:
        """All values that have a name already."""
        return {*self.input_names, *self._constants, *self._producers}

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a value; none for inputs and initializers."""
        return self._producers.get(name)

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        """Nodes that read a value, in themselves or in a branch."""
        return [node for node in self.nodes if name in names_read(node)]

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """The value of an initializer or of a Constant node; none of anything else."""
        tensor = self._constants.get(name)
        node = self._producers.get(name)
        if tensor is None and node is not None and node.op_type == "Constant":
            tensor = next((item.t for item in node.attribute if item.name == "value"), None)
        return None if tensor is None else self._read(tensor)

    def constant_shape(self, name: str) -> tuple[int, ...] | None:
        """An initializer's shape; none of anything else."""
        tensor = self._constants.get(name)
        return None if tensor is None else tuple(tensor.dims)

    def output_type(self, name: str) -> tuple[int, tuple[int | str, ...]]:
        """Element type (`TensorProto.DataType`) and shape as declared of an output.

        A dimension that is known only when the graph runs is a name, maybe an empty one.
        """
        kind = self._output(name).type.tensor_type
        dims = (dim.dim_value or dim.dim_param for dim in kind.shape.dim)
        return int(kind.elem_type), tuple(dims)

    def add_constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Store an initializer; return its name."""
        dtype = helper.np_dtype_to_tensor_dtype(value.dtype)
        tensor = TensorProto(name=name, data_type=dtype, dims=value.shape)
        self._store(tensor, np.ascontiguousarray(value).reshape(-1).view(np.uint8))
        self._constants[name] = tensor
        return name

    def add_input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        """Declare an input; return its name."""
        self._model.graph.input.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def remove_input(self, name: str) -> None:
        """Take an input away that nothing reads."""
        inputs = self._model.graph.input
        [info] = [item for item in inputs if item.name == name]
        inputs.remove(info)

    def set_output_shape(self, name: str, shape: Sequence[int | str]) -> None:
        """Declare another shape of an output."""
        info = self._output(name)
        dtype = info.type.tensor_type.elem_type
        info.CopyFrom(helper.make_tensor_value_info(name, dtype, shape))

    def replace(self, node: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> None:
        """Put nodes where one was."""
        index = next(i for i, other in enumerate(self.nodes) if other is node)
        self.nodes[index : index + 1] = nodes
        for name in node.output:
            self._producers.pop(name, None)
        self._producers |= {name: new for new in nodes for name in new.output if name}

    def remove_unused_nodes(self) -> None:
        """Drop nodes that no output needs."""
        used = set(self.output_names)
        kept: list[onnx.NodeProto] = []
        for node in reversed(self.nodes):  # consumers stand behind producers
            if used.intersection(node.output):
                kept.append(node)
                used |= names_read(node)
        self.nodes = kept[::-1]
        self._producers = {name: node for node in self.nodes for name in node.output if name}

    def save(self) -> Path:
        """Write what the outputs need; return the target. The graph is of no use afterwards."""
        self.remove_unused_nodes()
        graph = self._model.graph
        used = {name for node in self.nodes for name in names_read(node)} | set(self.output_names)
        weights = [tensor for name, tensor in self._constants.items() if name in used]
        for tensor in weights:
            self._settle(tensor)
        inputs = [item for item in graph.input if item.name not in self._constants]
        # No value_info: what is declared of values inside may not hold any more.
        for field, items in (
            ("node", self.nodes),
            ("initializer", weights),
            ("input", inputs),
            ("value_info", ()),
        ):
            # Copies, because the messages that a field holds end with it.
            copies = [type(item).FromString(item.SerializeToString()) for item in items]
            graph.ClearField(field)
            getattr(graph, field).extend(copies)
        if all(item.domain != CONTRIB for item in self._model.opset_import):
            self._model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
        if self._data is not None:
            self._data.flush()
        self._target.write_bytes(self._model.SerializeToString())
        return self._target

    def _output(self, name: str) -> onnx.ValueInfoProto:
        outputs = self._model.graph.output
        info: onnx.ValueInfoProto = next(item for item in outputs if item.name == name)
        return info

    def _read(self, tensor: TensorProto) -> npt.NDArray[Any]:
        """A tensor's value, wherever its bytes are."""
        if not _is_external(tensor):
            return np.asarray(numpy_helper.to_array(tensor))
        inside = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        inside.raw_data = self._map(tensor).tobytes()
        return np.asarray(numpy_helper.to_array(inside))

    def _map(self, tensor: TensorProto) -> npt.NDArray[np.uint8]:
        """The bytes of an external tensor."""
        place = {item.key: item.value for item in tensor.external_data}
        path = self._folder / place["location"]
        if tensor.name in self._stored and self._data is not None:
            self._data.flush()
            path = self._data_path
        start, length = int(place.get("offset", 0)), place.get("length")
        size = path.stat().st_size - start if length is None else int(length)
        if size == 0:
            return np.empty(0, np.uint8)
        return np.memmap(path, np.uint8, "r", start, (size,))

    def _settle(self, tensor: TensorProto) -> None:
        """Bring a weight's bytes to where the target's are."""
        if tensor.name in self._stored:
            return
        if _is_external(tensor):
            self._store(tensor, self._map(tensor))
        elif tensor.HasField("raw_data") and len(tensor.raw_data) >= MIN_EXTERNAL_BYTES:
            self._store(tensor, np.frombuffer(tensor.raw_data, np.uint8))

    def _store(self, tensor: TensorProto, content: npt.NDArray[np.uint8]) -> None:
        """Put bytes into the target's data, or into the tensor if they are few."""
        tensor.ClearField("external_data")
        self._stored.add(tensor.name)
        if content.size < MIN_EXTERNAL_BYTES:
            tensor.data_location = TensorProto.DEFAULT
            tensor.raw_data = content.tobytes()
            return
        if self._data is None:
            self._data = self._data_path.open("wb")
        offset = -(-self._data.tell() // ALIGNMENT) * ALIGNMENT
        self._data.seek(offset)
        for start in range(0, content.size, COPY_BYTES):
            self._data.write(content[start : start + COPY_BYTES].data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": self._data_path.name, "offset": offset, "length": content.size}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))


def names_read(node: onnx.NodeProto) -> set[str]:
    """Values that a node reads, those that only its branches read included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names.update(*(names_read(inner) for inner in graph.node))
            names.update(item.name for item in graph.output)
    return names


def _is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)

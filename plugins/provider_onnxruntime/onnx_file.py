"""An ONNX file's skeleton: inputs, outputs, operators and weights, without the weights' bytes.

It is read before the runtime opens the file, to know the decoder's convention and to refuse what
must not be opened. Field numbers are those of `onnx.proto3` (onnx/onnx, ir_version 3 to 13).
"""

import mmap
from dataclasses import dataclass, field
from pathlib import Path

from provider_core import ConfigurationError
from provider_core.decoder_io import TensorSpec
from provider_onnxruntime.protobuf import MalformedMessage, read_fields, read_varints

EXTERNAL = 1  # TensorProto.DataLocation
MAX_DEPTH = 16  # of subgraphs; exporters stay below 4
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1",
}
"""TensorProto.DataType by numpy's (and ml_dtypes') names."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A weight, wherever its bytes are.

    Attributes:
        external: Keys and values of `external_data` when the bytes are in another file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    external: dict[str, str] | None


@dataclass(slots=True)
class OnnxFile:
    """What the skeleton says.

    Attributes:
        inputs: Graph inputs, weights left out.
        operators: Pairs of domain and operator type, anywhere in the model, functions included.
        functions: The same pairs, of functions that the model defines itself.
        weights: Initializers and tensor attributes, anywhere in the model.
        weight_bits: Bits of the weights that MatMulNBits takes.
        metadata: The model's own keys and values.
    """

    inputs: list[TensorSpec] = field(default_factory=list)
    outputs: list[TensorSpec] = field(default_factory=list)
    operators: set[tuple[str, str]] = field(default_factory=set)
    functions: set[tuple[str, str]] = field(default_factory=set)
    weights: list[StoredTensor] = field(default_factory=list)
    weight_bits: set[int] = field(default_factory=set)
    metadata: dict[str, str] = field(default_factory=dict)


def read_onnx_file(path: Path) -> OnnxFile:
    """Read the skeleton.

    Raises:
        ConfigurationError: The file is empty, unreadable or not an ONNX model.
    """
    try:
        with path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _Reader().read_model(memoryview(pages))
    except (MalformedMessage, UnicodeDecodeError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path} is not an ONNX model: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error


class _Reader:
    """Walks the messages of one file. A wrong wire type surfaces as TypeError."""

    def __init__(self) -> None:
        self._file = OnnxFile()

    def read_model(self, message: memoryview) -> OnnxFile:
        graph = None
        for number, value in read_fields(message):
            if number == 7:  # graph
                graph = _view(value)
            elif number == 14:  # metadata_props
                key, text = _read_pair(_view(value))
                self._file.metadata[key] = text
            elif number == 25:  # functions
                self._read_function(_view(value))
        if graph is None:
            raise MalformedMessage("it has no graph")
        self._read_graph(graph, depth=0)
        return self._file

    def _read_function(self, message: memoryview) -> None:
        name, domain = "", ""
        for number, value in read_fields(message):
            if number == 1:
                name = _text(value)
            elif number == 7:
                self._read_node(_view(value), depth=1)
            elif number == 10:
                domain = _text(value)
        self._file.functions.add((domain, name))

    def _read_graph(self, message: memoryview, *, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise MalformedMessage(f"graphs nest deeper than {MAX_DEPTH}")
        inputs, outputs, own_weights = [], [], set()
        for number, value in read_fields(message):
            if number == 1:  # node
                self._read_node(_view(value), depth=depth)
            elif number == 5:  # initializer
                own_weights.add(self._read_tensor(_view(value)))
            elif number == 15:  # sparse_initializer
                self._read_sparse_tensor(_view(value))
            elif number == 11 and depth == 0:
                inputs.append(_read_value_info(_view(value)))
            elif number == 12 and depth == 0:
                outputs.append(_read_value_info(_view(value)))
        self._file.inputs += [spec for spec in inputs if spec.name not in own_weights]
        self._file.outputs += outputs

    def _read_node(self, message: memoryview, *, depth: int) -> None:
        op_type, domain, attributes = "", "", []
        for number, value in read_fields(message):
            if number == 4:
                op_type = _text(value)
            elif number == 7:
                domain = _text(value)
            elif number == 5:
                attributes.append(_view(value))
        self._file.operators.add((domain, op_type))
        for attribute in attributes:
            self._read_attribute(attribute, op_type, depth=depth)

    def _read_attribute(self, message: memoryview, op_type: str, *, depth: int) -> None:
        name, number_value = "", 0
        for number, value in read_fields(message):
            if number == 1:
                name = _text(value)
            elif number == 3 and isinstance(value, int):  # i
                number_value = value
            elif number in {5, 10}:  # t, tensors
                self._read_tensor(_view(value))
            elif number in {6, 11}:  # g, graphs
                self._read_graph(_view(value), depth=depth + 1)
            elif number in {22, 23}:  # sparse_tensor, sparse_tensors
                self._read_sparse_tensor(_view(value))
        if op_type == "MatMulNBits" and name == "bits":
            self._file.weight_bits.add(number_value)

    def _read_sparse_tensor(self, message: memoryview) -> None:
        for number, value in read_fields(message):
            if number in {1, 2}:  # values, indices
                self._read_tensor(_view(value))

    def _read_tensor(self, message: memoryview) -> str:
        name, dtype, location = "", 0, 0
        shape: list[int] = []
        external: dict[str, str] = {}
        for number, value in read_fields(message):
            if number == 1:  # dims
                shape += list(read_varints(value))
            elif number == 2 and isinstance(value, int):
                dtype = value
            elif number == 8:
                name = _text(value)
            elif number == 13:
                key, text = _read_pair(_view(value))
                external[key] = text
            elif number == 14 and isinstance(value, int):
                location = value
        is_external = location == EXTERNAL or bool(external)
        self._file.weights.append(
            StoredTensor(name, _dtype(dtype), tuple(shape), external if is_external else None)
        )
        return name


def _read_value_info(message: memoryview) -> TensorSpec:
    name, dtype = "", 0
    shape: list[int | None] = []
    for number, value in read_fields(message):
        if number == 1:
            name = _text(value)
        elif number == 2:  # type
            for kind, tensor_type in read_fields(_view(value)):
                if kind == 1:  # tensor_type; sequences and maps stay without a dtype
                    dtype, shape = _read_tensor_type(_view(tensor_type))
    return TensorSpec(name, _dtype(dtype), tuple(shape))


def _read_tensor_type(message: memoryview) -> tuple[int, list[int | None]]:
    dtype = 0
    shape: list[int | None] = []
    for number, value in read_fields(message):
        if number == 1 and isinstance(value, int):
            dtype = value
        elif number == 2:
            shape = [
                _read_dimension(_view(item))
                for kind, item in read_fields(_view(value))
                if kind == 1
            ]
    return dtype, shape


def _read_dimension(message: memoryview) -> int | None:
    for number, value in read_fields(message):
        if number == 1 and isinstance(value, int):  # dim_value
            return value
    return None


def _read_pair(message: memoryview) -> tuple[str, str]:
    texts = {number: _text(value) for number, value in read_fields(message)}
    return texts.get(1, ""), texts.get(2, "")


def _dtype(number: int) -> str:
    return DTYPES.get(number, f"type {number}")


def _text(value: int | memoryview) -> str:
    return str(_view(value), "utf-8")


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise MalformedMessage("a number where a message must be")
    return value

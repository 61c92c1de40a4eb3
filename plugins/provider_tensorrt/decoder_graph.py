"""An exported decoder, as engines are built of it and as the host device runs it.

`provider export --target tensorrt` writes the `scatter` convention: caches that are written in
place, whose length the file leaves open. `fit_decoder` makes of it what an engine takes:

- caches of one fixed length, because TensorRT's cache update takes no other;
- an input `window`, of which only the length counts: attention reads so many first positions of the
  caches, so that a step costs what its texts need and not what the buffers hold.

=======================  =================================  ========================================
tensor                   shape, dtype                       meaning
=======================  =================================  ========================================
`input_ids`              `[n, s]` int64                     the new tokens
`position_ids`           `[n, s]` int64                     where they stand in their texts
`write_indices`          `[n]` int64                        position of each row's first new token
`window`                 `[w]` int64, never read            w is at least the longest text after the
                                                            step, at most the caches' length
`num_logits_to_keep`     `[]` int64, in host memory         last positions that get logits; 0 is all
`past_key_values.i.*`    `[n, heads, length, head_dim]`     the rows' caches
`present.i.*`            as past, the same memory           the same, new tokens written
`logits`                 `[n, num_logits, vocab_size]`
=======================  =================================  ========================================

`DecoderIO` says how a graph spells these, which of them it has, and the dtypes.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from provider_core import ConfigurationError
from provider_core.decoder_io import DecoderIO, TensorSpec, describe_decoder
from provider_core.model_files import find_data_file

MODEL_FILE, CONFIG_FILE = "model.onnx", "config.json"
WINDOW = "window"
EXPORT_COMMAND = "provider export SOURCE OUT --target tensorrt"
PRECISION_PROPERTY = "provider.precision"  # of the model's metadata
_LENGTH_AXIS = 2  # of caches
_STORED_AS = {"hybrid": "int8"}  # a precision that is a way to run, by how its weights are stored
_PRECISION_NAMES = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float8_e4m3fn": "fp8",
    "int8": "int8",
    "int4": "int4",
    "float4_e2m1fn": "fp4",
}
"""OpenRouter's vocabulary by a weight's dtype."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedDecoder:
    """A decoder's file, checked, its weights not read.

    Attributes:
        model: The graph; weights that lie in other files are only named.
        data_files: Those files, in the model's folder.
        precision: Of the weights as stored, in OpenRouter's vocabulary; `None` if unknown.
        max_positions: How many it is made for, as its configuration says; `None` if it does not.
    """

    path: Path
    model: onnx.ModelProto
    io: DecoderIO
    data_files: tuple[Path, ...]
    precision: str | None
    max_positions: int | None


def read_decoder(model_dir: Path) -> ExportedDecoder:
    """Read a folder's decoder, and refuse what no engine can or may be built of.

    Raises:
        ConfigurationError: There is none, it is malformed, of another convention, has operators
            that are not ONNX's own, or names weights outside its folder.
    """
    path = model_dir / MODEL_FILE
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{model_dir} has no {MODEL_FILE}; make one: {EXPORT_COMMAND}"
        ) from error
    except (OSError, DecodeError) as error:
        raise ConfigurationError(f"{path} is no ONNX model that can be read") from error
    op_types = {node.op_type for node in model.graph.node}
    foreign = sorted(_foreign(model))
    if foreign:
        raise ConfigurationError(
            f"{path} has operators that TensorRT lacks, such as {foreign[0]}; "
            f"export it again: {EXPORT_COMMAND}"
        )
    weights = {weight.name for weight in model.graph.initializer}
    io = describe_decoder(
        [_spec(value) for value in model.graph.input if value.name not in weights],
        [_spec(value) for value in model.graph.output],
        op_types,
    )
    if io.convention != "scatter":
        raise ConfigurationError(
            f"{path} keeps its cache in the {io.convention} convention, which TensorRT cannot "
            f"write in place; export it again: {EXPORT_COMMAND}"
        )
    return ExportedDecoder(
        path=path,
        model=model,
        io=io,
        data_files=_find_data_files(model_dir, stored_tensors(model)),
        precision=_read_precision(model),
        max_positions=_read_max_positions(model_dir),
    )


def fit_decoder(decoder: ExportedDecoder, max_model_len: int) -> onnx.ModelProto:
    """The graph with caches of a fixed length and the input `window`.

    Its weights in other files are named as in the decoder's own, relative to its folder.

    Args:
        decoder: As exported.
        max_model_len: Positions of each cache.

    Raises:
        ConfigurationError: The graph is made for fewer positions, or uses its caches in a way that
            cannot be windowed.
    """
    most = min(n for n in (decoder.max_positions, decoder.io.max_cache_len, max_model_len) if n)
    if most < max_model_len:
        raise ConfigurationError(
            f"{decoder.path} is made for {most} positions; {max_model_len} are asked for"
        )
    model = onnx.ModelProto()
    model.CopyFrom(decoder.model)
    past = {cache.past for cache in decoder.io.caches}
    present = {cache.present for cache in decoder.io.caches}
    for value in (*model.graph.input, *model.graph.output):
        if value.name in past | present:
            value.type.tensor_type.shape.dim[_LENGTH_AXIS].dim_value = max_model_len
    del model.graph.value_info[:]  # told shapes before they were fixed
    model.graph.input.append(
        helper.make_tensor_value_info(WINDOW, onnx.TensorProto.INT64, ("window_length",))
    )
    constants = {f"{WINDOW}.start": 0, f"{WINDOW}.axis": _LENGTH_AXIS}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array([number], np.int64), name)
        for name, number in constants.items()
    )
    nodes = [helper.make_node("Shape", (WINDOW,), (f"{WINDOW}.end",), name=f"{WINDOW}.end")]
    for node in model.graph.node:
        nodes.append(_read_through_window(node, past, present))
        nodes += [_cut_to_window(name) for name in node.output if name in present]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _read_through_window(node: onnx.NodeProto, past: set[str], present: set[str]) -> onnx.NodeProto:
    """The node, with windows in the place of whole caches."""
    if node.op_type == "Shape" and node.input[0] in past | present:
        axes = {attribute.name: attribute.i for attribute in node.attribute}
        if axes != {"start": _LENGTH_AXIS, "end": _LENGTH_AXIS + 1}:
            raise ConfigurationError(
                f"node {node.name!r} asks for more of a cache's shape than its length"
            )
        return helper.make_node("Shape", (WINDOW,), node.output, name=node.name)
    if node.op_type != "TensorScatter" and past & set(node.input):
        raise ConfigurationError(
            f"node {node.name!r} ({node.op_type}) reads a cache before its new tokens are in it"
        )
    for place, name in enumerate(node.input):
        if name in present:
            node.input[place] = f"{name}.{WINDOW}"
    return node


def _cut_to_window(name: str) -> onnx.NodeProto:
    inputs = (name, f"{WINDOW}.start", f"{WINDOW}.end", f"{WINDOW}.axis")
    windowed = f"{name}.{WINDOW}"
    return helper.make_node("Slice", inputs, (windowed,), name=windowed)


def _foreign(model: onnx.ModelProto) -> set[str]:
    """Operators that are not ONNX's own, as `domain.name`."""
    return {
        f"{node.domain}.{node.op_type}"
        for node in model.graph.node
        if node.domain not in {"", "ai.onnx"}
    }


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.WhichOneof("value") == "dim_value" else None
        for dim in tensor.shape.dim
    )
    return TensorSpec(value.name, helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape)


def stored_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a model, wherever they are stored in it."""
    functions = [node for function in model.functions for node in function.node]
    return chain(_stored_tensors(model.graph.node, model.graph), _stored_tensors(functions))


def _stored_tensors(
    nodes: Iterable[onnx.NodeProto], graph: onnx.GraphProto | None = None
) -> Iterator[onnx.TensorProto]:
    """All tensors that are stored with nodes, in the graphs within them, and with their graph."""
    sparse = [*graph.sparse_initializer] if graph is not None else []
    if graph is not None:
        yield from graph.initializer
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        sparse += (attribute.sparse_tensor, *attribute.sparse_tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _stored_tensors(inner.node, inner)
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def _find_data_files(folder: Path, weights: Iterable[onnx.TensorProto]) -> tuple[Path, ...]:
    """The plain files in the folder that hold weights."""
    locations = {
        entry.value
        for weight in weights
        if weight.data_location == onnx.TensorProto.EXTERNAL
        for entry in weight.external_data
        if entry.key == "location"
    }
    return tuple(
        find_data_file(folder, folder, location, what="external data")
        for location in sorted(locations)
    )


def _read_precision(model: onnx.ModelProto) -> str | None:
    """As the exporter says, or else the dtype that most weights are stored in."""
    for entry in model.metadata_props:
        if entry.key == PRECISION_PROPERTY:
            precision = str(entry.value)
            return _STORED_AS.get(precision, precision)
    sizes: Counter[str] = Counter()
    for weight in model.graph.initializer:
        name = helper.tensor_dtype_to_np_dtype(weight.data_type).name
        if len(weight.dims) > 1 and name in _PRECISION_NAMES:
            sizes[name] += prod(weight.dims)
    return _PRECISION_NAMES[sizes.most_common(1)[0][0]] if sizes else None


def _read_max_positions(model_dir: Path) -> int | None:
    """Positions that the exporter made tables of rotations for, as it wrote them down."""
    path = model_dir / CONFIG_FILE
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_bytes())
        number = config.get("text_config", config).get("max_position_embeddings")
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(f"{path} is no JSON object") from error
    return number if isinstance(number, int) else None

"""Which file of a folder is the decoder, and whether it may be opened.

A model's files are data from strangers. A decoder is refused when it names weights outside its own
folder, needs operators from a library of its own, or carries compiled code for a device.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from provider_core import ConfigurationError
from provider_core.decoder_io import DecoderIO, describe_decoder, read_genai_names
from provider_core.model_files import find_data_file, resolve_beneath
from provider_onnxruntime.onnx_file import OnnxFile, StoredTensor, read_onnx_file

CANDIDATES = ("model.onnx", "onnx/model.onnx")
PRECISION_PROPERTY = "provider.precision"  # of the model's metadata
GENAI_CONFIG = "genai_config.json"
OPERATOR_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc"})
DEVICE_CODE_OPERATOR = "EPContext"  # carries or names a compiled engine
BITS_OF = {"int4": 4, "uint4": 4, "float4_e2m1": 4, "bool": 8}
QUANTIZED_NAMES = {2: "int2", 4: "int4", 8: "int8"}
PRECISION_NAMES = {
    "float64": "fp32",
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "int8": "int8",
    "uint8": "int8",
    "int4": "int4",
    "uint4": "int4",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
    "float4_e2m1": "fp4",
}
"""OpenRouter's vocabulary by a weight's dtype."""


@dataclass(frozen=True, slots=True)
class DecoderFile:
    """A decoder that may be opened.

    Attributes:
        precision: Of most of its weights as stored, in OpenRouter's vocabulary.
        runs_as: How the file says that it is meant to be run, if it says so.
        folder: The model's; its configurations say what the graph leaves open.
        data_files: Files beside `path` that hold weights.
    """

    path: Path
    io: DecoderIO
    precision: str | None
    runs_as: str | None = None
    folder: Path = Path()
    data_files: tuple[Path, ...] = ()


def holds_onnx(folder: Path) -> bool:
    """Whether any ONNX file is where decoders are."""
    return any(True for pattern in ("*.onnx", "onnx/*.onnx") for _ in folder.glob(pattern))


def find_decoder_file(folder: Path, name: str | None = None) -> Path:
    """The decoder's file: `name`, or what `genai_config.json` names, or one of the usual places.

    Raises:
        ConfigurationError: There is none, or `genai_config.json` is malformed or names something
            it must not.
    """
    genai = _read_genai_config(folder)
    if name is not None:
        return resolve_beneath(folder, name, what="model_file")
    if genai is not None:
        filename = genai.get("filename", CANDIDATES[0])
        if not isinstance(filename, str):
            raise ConfigurationError(f"{GENAI_CONFIG}: filename must be a string")
        return resolve_beneath(folder, filename, what=f"{GENAI_CONFIG}: filename")
    for candidate in CANDIDATES:
        if (folder / candidate).is_file():
            return resolve_beneath(folder, candidate, what="the decoder's file")
    raise ConfigurationError(
        f"{folder} has no {' or '.join(CANDIDATES)}; name its decoder in the option model_file"
    )


def read_decoder(folder: Path, path: Path, file: OnnxFile | None = None) -> DecoderFile:
    """Describe a decoder and refuse what must not be opened.

    Args:
        folder: The model's folder; nothing outside it is ever opened.
        path: The decoder's file in it.
        file: Its skeleton, if it was read before.

    Raises:
        ConfigurationError: The file is malformed, unsafe, or no decoder we know.
    """
    file = file or read_onnx_file(path)
    check_operators(file)
    check_external_data(folder, path, file.weights)
    locations = {weight.external["location"] for weight in file.weights if weight.external}
    return DecoderFile(
        path,
        _describe(folder, file),
        read_precision(file),
        file.metadata.get(PRECISION_PROPERTY),
        folder,
        tuple(path.parent / location for location in sorted(locations)),
    )


def read_rewritten(decoder: DecoderFile, path: Path) -> DecoderIO:
    """Describe what a decoder was rewritten to, checked like the decoder itself.

    Args:
        decoder: As supplied.
        path: The other graph, in a folder of its own.

    Raises:
        ConfigurationError: The file is malformed, unsafe, or no decoder any more.
    """
    return _describe(decoder.folder, check_rewritten(path))


def check_rewritten(path: Path) -> OnnxFile:
    """Check a graph that was written here, and maybe changed since, before it is run.

    Raises:
        ConfigurationError: The file is malformed or unsafe.
    """
    file = read_onnx_file(path)
    check_operators(file)
    check_external_data(path.parent, path, file.weights)
    for weight in file.weights:
        check_prepacked(path, weight)
    return file


def check_prepacked(path: Path, weight: StoredTensor) -> None:
    """Check that a weight's copies in the layout of kernels are within their file.

    ONNX Runtime maps them from `offset;length` behind the weight's place, without looking.

    Raises:
        ConfigurationError: One is not.
    """
    for key, place in (weight.external or {}).items():
        if not key.startswith("prepacked"):
            continue
        size = (path.parent / (weight.external or {})["location"]).stat().st_size
        for start, length in re.findall(r"\|(\d+);(\d+)", place):
            if int(start) + int(length) > size:
                raise ConfigurationError(f"weight {weight.name!r} is cut off")


def _describe(folder: Path, file: OnnxFile) -> DecoderIO:
    op_types = {op_type for _, op_type in file.operators}
    genai = _read_genai_config(folder)
    names = None if genai is None else read_genai_names(genai)
    head_dim = _read_head_dim(folder, genai or {})
    return describe_decoder(file.inputs, file.outputs, op_types, names, head_dim)


def check_operators(file: OnnxFile) -> None:
    """Refuse operators that only a library beside the model could run, and compiled engines.

    Raises:
        ConfigurationError: Naming the operator.
    """
    for domain, op_type in sorted(file.operators - file.functions):
        if domain not in OPERATOR_DOMAINS:
            raise ConfigurationError(
                f"operator {domain}.{op_type} needs a custom operator library; none is ever loaded"
            )
        if op_type == DEVICE_CODE_OPERATOR:
            raise ConfigurationError("the model carries a compiled engine, which is code; refused")
    if "ort_config" in file.metadata:
        raise ConfigurationError("the model's metadata sets session options (ort_config); refused")


def check_external_data(folder: Path, path: Path, weights: Iterable[StoredTensor]) -> None:
    """Check that weights outside the model's file are plain ranges of plain files beside it.

    Args:
        folder: The model's folder.
        path: The model's file; locations are relative to where it lies.
        weights: Of the model.

    Raises:
        ConfigurationError: A location leaves the folder or is a link, symbolic or hard; a range
            leaves its file, has the wrong size, or overlaps another.
    """
    files: dict[str, tuple[Path, int]] = {}  # by location: many weights share one
    ranges: dict[Path, list[tuple[int, int, str]]] = {}
    for weight in weights:
        if weight.external is None:
            continue
        what = f"weight {weight.name!r}: external data"
        location = weight.external.get("location", "")
        if location not in files:
            target = find_data_file(folder, path.parent, location, what=what)
            files[location] = target, target.stat().st_size
        target, file_size = files[location]
        start, size = _external_range(weight, file_size, what)
        ranges.setdefault(target, []).append((start, start + size, weight.name))
    for used in ranges.values():
        used.sort()
        for (_, end, name), (start, _, other) in pairwise(used):
            if start < end:
                raise ConfigurationError(f"weights {name!r} and {other!r} overlap in their file")


def read_precision(file: OnnxFile) -> str | None:
    """The precision that most weights are stored in."""
    if file.weight_bits:
        return QUANTIZED_NAMES.get(min(file.weight_bits))
    bits_by_dtype: dict[str, int] = {}
    for weight in file.weights:
        if len(weight.shape) > 1 and weight.dtype in PRECISION_NAMES:
            bits_by_dtype.setdefault(weight.dtype, 0)
            bits_by_dtype[weight.dtype] += math.prod(weight.shape)
    if not bits_by_dtype:
        return None
    return PRECISION_NAMES[max(bits_by_dtype, key=lambda dtype: bits_by_dtype[dtype])]


def _external_range(weight: StoredTensor, file_size: int, what: str) -> tuple[int, int]:
    """Offset and size in bytes."""
    external = weight.external or {}
    try:
        start, size = int(external.get("offset", "0")), int(external.get("length", "-1"))
    except ValueError as error:
        raise ConfigurationError(f"{what} has an offset or length that is no number") from error
    expected = _size_bytes(weight)
    if size == -1 and "length" not in external:
        size = expected
    if start < 0 or size < 0 or start + size > file_size:
        raise ConfigurationError(
            f"{what} takes bytes {start} to {start + size} of a file of {file_size}"
        )
    if size != expected:
        raise ConfigurationError(f"{what} has {size} bytes, its shape needs {expected}")
    return start, size


def _size_bytes(weight: StoredTensor) -> int:
    if weight.dtype == "string" or weight.dtype.startswith("type "):
        raise ConfigurationError(f"weight {weight.name!r} of {weight.dtype} cannot be external")
    if any(size > 2**62 for size in weight.shape):
        raise ConfigurationError(f"weight {weight.name!r} has a negative dimension")
    bits = BITS_OF.get(weight.dtype) or _digits(weight.dtype)
    return (math.prod(weight.shape) * bits + 7) // 8


def _digits(dtype: str) -> int:
    """Bits of a dtype by its name: `float16` is 16, `float8_e4m3fn` is 8."""
    return int("".join(c for c in dtype.split("_", maxsplit=1)[0] if c.isdigit()))


def _read_head_dim(folder: Path, genai: Mapping[str, object]) -> int | None:
    """The dimension of a head as `genai_config.json` or `config.json` gives it."""
    size = genai.get("head_size")
    path = folder / "config.json"
    if size is None and path.is_file():
        try:
            config = json.loads(path.read_bytes())
            size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
            return None  # needed only where the graph leaves it open, and missed there by name
    return size if isinstance(size, int) and size > 0 else None


def _read_genai_config(folder: Path) -> dict[str, object] | None:
    """`model.decoder` of the folder's `genai_config.json`, checked."""
    path = folder / GENAI_CONFIG
    if not path.is_file():
        return None
    try:
        decoder = json.loads(path.read_bytes())["model"]["decoder"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} has no model.decoder table") from error
    if not isinstance(decoder, dict):
        raise ConfigurationError(f"{path}: model.decoder is not a table")
    options = decoder.get("session_options", {})
    if isinstance(options, dict) and "custom_ops_library" in options:
        raise ConfigurationError(f"{path}: custom_ops_library is code; none is ever loaded")
    return decoder

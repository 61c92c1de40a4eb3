"""From a Hugging Face folder, or a published shape alone, to a decoder folder that can be served.

Weights are read, quantised and written one after the other: memory stays near the largest of them.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import ml_dtypes  # registers bfloat16 with numpy
import numpy as np
import numpy.typing as npt
import onnx

from provider_core import ConfigurationError
from provider_core.quantization import quantize_channels
from provider_export.checkpoint import INDEX_FILE, SINGLE_FILE, Checkpoint
from provider_export.cpu_target import CpuTarget
from provider_export.decoder import HEAD, DecoderBuilder, Target, WeightSource
from provider_export.decoder_config import (
    DecoderConfig,
    parse_config,
    read_config,
    write_config,
)
from provider_export.external_data import ExternalData
from provider_export.graph_builder import GraphBuilder
from provider_export.linear import LinearLayers
from provider_export.random_source import RandomShape, RandomWeights
from provider_export.staging import staged_folder
from provider_export.tensorrt_target import TensorRtTarget
from provider_export.weight_formats import (
    ChannelFormat,
    FloatFormat,
    Int4Format,
    WeightFormat,
    quantize_fp8,
)

TargetName = Literal["cpu", "tensorrt"]
Precision = Literal["fp32", "fp16", "bf16", "fp8", "int8", "int4", "hybrid"]
Activations = Literal["fp32", "fp16", "bf16"]
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": ml_dtypes.bfloat16.__name__}
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DEFAULT_BLOCK_SIZE = 32
MODEL_FILE, DATA_FILE = "model.onnx", "model.onnx.data"
MAX_SINGLE_FILE_BYTES = 2**25  # of weights that still go into the model itself
MIN_BLOCK_SIZE, MAX_BLOCK_SIZE = 16, 256  # that runtimes have kernels for, if powers of two
TOKENIZER_FILE = "tokenizer.json"
GENAI_CONFIG = "genai_config.json"  # of decoders that onnxruntime-genai exports
COMPANION_FILES = (
    "generation_config.json",
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""Copied as they are where the source has them; the configuration is rewritten."""


def export_decoder(
    source: Path | RandomShape,
    out: Path,
    *,
    target: TargetName = "cpu",
    precision: Precision = "fp32",
    activations: Activations = "fp32",
    block_size: int = DEFAULT_BLOCK_SIZE,
    weights: Path | None = None,
    max_model_len: int | None = None,
    on_weights: Callable[[int], object] | None = None,
) -> Path:
    """Write a decoder folder: the model, its configuration, tokenizer and chat template.

    Args:
        source: A Hugging Face folder with config.json and safetensors, or a shape alone.
        out: Made if it is missing; the files of a model that was exported there before are
            replaced or go. It may be `source`. Nothing is in it before all of it is.
        target: Which runtime's operators the graph uses.
        precision: What weights are stored as. `hybrid` stores int8 and says that int4 may be
            derived from it too.
        activations: What layers compute in and caches hold; the target `cpu` has float32 only.
        block_size: Inputs that share a scale in int4.
        weights: Where the safetensors are, if not in `source`.
        max_model_len: Positions to build for, if fewer than `max_position_embeddings`; `longrope`
            takes its short factors where the original length holds them all. Needs another folder
            than `source`, whose config.json is not changed.
        on_weights: Called after each tensor that was read with the number of its weights.

    Returns:
        The model file.

    Raises:
        ConfigurationError: The source cannot be exported; the message says why.
    """
    matrices, tables = choose_formats(target, precision, block_size)
    if target == "cpu" and activations != "fp32":
        raise ConfigurationError(f"target cpu computes in fp32 only, not in {activations}")
    is_in_place = isinstance(source, Path) and out.resolve() == source.resolve()
    if max_model_len is not None and is_in_place:
        raise ConfigurationError("a length of its own needs an output folder of its own")
    if not is_in_place:
        _refuse_other_models(out)
    companions = () if is_in_place else COMPANION_FILES
    with staged_folder(out, (MODEL_FILE, DATA_FILE), companions) as folder:
        if isinstance(source, RandomShape):
            source.write(folder)
        elif not is_in_place:
            _copy_companions(source, folder)
        described = source if isinstance(source, Path) else folder
        config = read_config(described, max_model_len)
        if not is_in_place:
            write_config(described, folder, config.max_position_embeddings)
        tensors = _open_weights(source, weights, config)
        if on_weights is not None:
            tensors = _Watched(tensors, on_weights)
        metadata: dict[str, str] = {"provider.precision": precision}
        if precision == "int4":
            metadata["provider.block_size"] = str(block_size)
        with ExternalData(folder / DATA_FILE) as data:
            graph = GraphBuilder(data, DTYPES[activations])
            operators: Target = (
                CpuTarget(config, graph) if target == "cpu" else TensorRtTarget(config, graph)
            )
            linear = LinearLayers(graph, matrices, tables)
            model = DecoderBuilder(config, tensors, graph, operators, linear).build()
        onnx.helper.set_model_props(model, metadata)
        _write(model, data, folder / MODEL_FILE)
    return out / MODEL_FILE


def choose_formats(
    target: TargetName, precision: Precision, block_size: int
) -> tuple[WeightFormat, WeightFormat]:
    """How matrices are stored, and how tables are.

    They are the same object where a tied head is to share its table. TensorRT has no gather of
    quantised rows: its tables stay float16 beside a quantised head.

    Raises:
        ConfigurationError: No runtime of the target has a kernel for it.
    """
    if not MIN_BLOCK_SIZE <= block_size <= MAX_BLOCK_SIZE or block_size.bit_count() != 1:
        raise ConfigurationError(
            f"block size {block_size} is not a power of two "
            f"from {MIN_BLOCK_SIZE} to {MAX_BLOCK_SIZE}"
        )
    matrices: WeightFormat
    match precision:
        case "fp32" | "fp16" | "bf16":
            matrices = FloatFormat(DTYPES[precision])
        case "int4":
            matrices = Int4Format(block_size)
        case "int8" | "hybrid":
            matrices = ChannelFormat("int8", quantize_channels)
        case "fp8":
            if target == "cpu":
                raise ConfigurationError("fp8 is for target tensorrt; for cpu there is int8")
            matrices = ChannelFormat("fp8", quantize_fp8)
    is_float = isinstance(matrices, FloatFormat)
    return matrices, matrices if is_float or target == "cpu" else FloatFormat("float16")


def count_weights(source: Path | RandomShape) -> int:
    """How many weights the linear layers and the tables of a source's decoder have.

    Raises:
        ConfigurationError: It has no configuration that can be exported.
    """
    config = read_config(source) if isinstance(source, Path) else parse_config(source.config)
    q_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    layer = config.hidden_size * (2 * q_size + 2 * kv_size + 3 * config.intermediate_size)
    num_tables = 1 if config.tie_word_embeddings else 2
    return config.num_layers * layer + num_tables * config.vocab_size * config.hidden_size


def find_remarks(source: Path | RandomShape, out: Path, weights: Path | None = None) -> list[str]:
    """What whoever exported should know.

    Args:
        source: As exported.
        out: The folder that was written.
        weights: As exported.
    """
    config = read_config(out)
    remarks = list(config.remarks)
    if not (out / TOKENIZER_FILE).is_file():
        remarks.append(f"{out} cannot be served without a {TOKENIZER_FILE}, which {source} lacks")
    has_head = isinstance(source, Path) and HEAD in Checkpoint(weights or source)
    if has_head and config.tie_word_embeddings:
        remarks.append(f"{HEAD} is not used: config.json says tie_word_embeddings")
    return remarks


def _refuse_other_models(out: Path) -> None:
    """A checkpoint would lose its companions; servers would believe another graph's description."""
    for name in (SINGLE_FILE, INDEX_FILE, GENAI_CONFIG):
        if (out / name).exists():
            raise ConfigurationError(
                f"{out} holds {name} of another model, whose files would be mixed with this one's"
            )


def _open_weights(
    source: Path | RandomShape, weights: Path | None, config: DecoderConfig
) -> WeightSource:
    if isinstance(source, RandomShape):
        return RandomWeights(is_tied=config.tie_word_embeddings, has_qkv_bias=config.has_qkv_bias)
    checkpoint = Checkpoint(weights or source)
    if checkpoint.num_layers > config.num_layers:
        raise ConfigurationError(
            f"num_hidden_layers is {config.num_layers}, "
            f"but the checkpoint has {checkpoint.num_layers} layers"
        )
    return checkpoint


def _copy_companions(source: Path, folder: Path) -> None:
    for name in COMPANION_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _write(model: onnx.ModelProto, data: ExternalData, model_file: Path) -> None:
    """Write the model file; few weights go into it and not beside it."""
    if data.num_bytes <= MAX_SINGLE_FILE_BYTES:
        onnx.load_external_data_for_model(model, str(model_file.parent))
        (model_file.parent / DATA_FILE).unlink(missing_ok=True)
    model_file.write_bytes(model.SerializeToString())


class _Watched:
    """Weights that tell how many of them have been read."""

    def __init__(self, weights: WeightSource, on_weights: Callable[[int], object]) -> None:
        self._weights = weights
        self._on_weights = on_weights

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    def read(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """One tensor."""
        weight = self._weights.read(name, shape)
        self._on_weights(weight.size)
        return weight

"""From a Hugging Face folder to a decoder folder that a backend can serve."""

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from provider_core import ConfigurationError
from provider_export.checkpoint import Checkpoint
from provider_export.cpu_target import CpuTarget
from provider_export.decoder import DecoderBuilder, Target
from provider_export.decoder_config import CONFIG_FILE, read_config, write_config
from provider_export.external_data import ExternalData
from provider_export.graph_builder import GraphBuilder
from provider_export.linear import LinearLayers
from provider_export.tensorrt_target import TensorRtTarget
from provider_export.weight_formats import FloatFormat

Precision = Literal["fp32", "fp16"]
TargetName = Literal["cpu", "tensorrt"]
MODEL_FILE = "model.onnx"
MAX_PROTOBUF_BYTES = 2**31 - 1  # of one message; larger weights go beside the model
COMPANION_FILES = (
    CONFIG_FILE,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""Copied as they are where the source has them."""


def export_decoder(
    source: Path,
    out: Path,
    *,
    target: TargetName = "cpu",
    precision: Precision = "fp32",
    weights: Path | None = None,
    max_model_len: int | None = None,
) -> Path:
    """Write a decoder folder: `model.onnx`, its configuration, tokenizer and chat template.

    Args:
        source: A Hugging Face folder with config.json and safetensors.
        out: Made if it is missing; files of the same names are replaced. It may be `source`.
        target: Which runtime's operators the graph uses.
        precision: How matrices are stored; everything is computed in float32.
        weights: Where the safetensors are, if not in `source`.
        max_model_len: Positions to build for, if fewer than `max_position_embeddings`; `longrope`
            takes its short factors where the original length holds them all. Needs another folder
            than `source`, whose config.json is not changed.

    Returns:
        The model file.

    Raises:
        ConfigurationError: The source cannot be exported; the message says why.
    """
    is_in_place = out.resolve() == source.resolve()
    if max_model_len is not None and is_in_place:
        raise ConfigurationError("a length of its own needs an output folder of its own")
    config, checkpoint = read_config(source, max_model_len), Checkpoint(weights or source)
    graph = GraphBuilder(ExternalData())
    operators: Target = (
        CpuTarget(config, graph) if target == "cpu" else TensorRtTarget(config, graph)
    )
    stored = FloatFormat(np.float16 if precision == "fp16" else np.float32)
    linear = LinearLayers(graph, matrices=stored, tables=stored)
    model = DecoderBuilder(config, checkpoint, graph, operators, linear).build()
    out.mkdir(parents=True, exist_ok=True)
    model_file = out / MODEL_FILE
    _write(model, model_file)
    if not is_in_place:
        for name in COMPANION_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, out / name)
        write_config(source, out, config.max_position_embeddings)
    return model_file


def _write(model: onnx.ModelProto, model_file: Path) -> None:
    """Weights go into a file beside the model only when one message cannot hold them."""
    try:
        num_bytes = model.ByteSize()
    except Exception as error:  # protobuf raises its own types for messages beyond 2 GiB
        raise ConfigurationError(f"the weights of {model_file} exceed one protobuf") from error
    if num_bytes < MAX_PROTOBUF_BYTES:
        onnx.save_model(model, model_file)
        return
    onnx.save_model(
        model,
        model_file,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{MODEL_FILE}.data",
    )

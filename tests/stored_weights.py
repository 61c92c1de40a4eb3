"""Checkpoints as they come back from storage: what an export in some precision equals."""

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from provider_core.quantization import (
    dequantize_blocks,
    dequantize_channels,
    quantize_blocks,
    quantize_channels,
)
from provider_export.export import Precision, TargetName

Matrix = npt.NDArray[np.float32]
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def store(weight: Matrix, precision: Precision, block_size: int) -> Matrix:
    """A checkpoint's `[out, in]` as it comes back from storage."""
    if precision == "int4":
        values, scales = quantize_blocks(weight.T, block_size)
        return dequantize_blocks(values, scales, block_size).T
    if precision in {"int8", "hybrid"}:
        return dequantize_channels(*quantize_channels(weight.T)).T
    if precision == "fp8":
        largest: Matrix = np.abs(weight).max(axis=1, keepdims=True) / np.float32(448)
        rounded: Matrix = (weight / largest).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
        return np.multiply(rounded, largest, dtype=np.float32)
    stored = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}.get(precision, np.float32)
    return weight.astype(stored).astype(np.float32)


def write_stored(
    source: Path, folder: Path, target: TargetName, precision: Precision, block_size: int
) -> Path:
    """The checkpoint that an export of `source` equals."""
    tensors = load_file(source / "model.safetensors")
    matrices = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 2}
    matrices.setdefault(HEAD, matrices[TABLE])
    stored = {name: store(matrix, precision, block_size) for name, matrix in matrices.items()}
    if target == "tensorrt" and precision in {"fp8", "int4", "int8", "hybrid"}:
        stored[TABLE] = store(matrices[TABLE], "fp16", block_size)
    folder.mkdir()
    shutil.copyfile(source / "config.json", folder / "config.json")
    save_file(
        {name: np.ascontiguousarray(tensor) for name, tensor in (tensors | stored).items()},
        folder / "model.safetensors",
    )
    return folder

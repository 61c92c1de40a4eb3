"""What a decoder's `config.json` says, checked: only what the graph builders can honour passes."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from provider_core import ConfigurationError


@dataclass(frozen=True, slots=True)
class Family:
    """How a model family differs from Llama. Biases are found in the checkpoint, not here.

    Attributes:
        has_qk_norm: An RMS norm over each head of queries and keys, before the rotation.
    """

    has_qk_norm: bool = False


FAMILIES: Mapping[str, Family] = {
    "llama": Family(),
    "qwen2": Family(),
    "qwen3": Family(has_qk_norm=True),
}
"""By `model_type` of config.json."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecoderConfig:
    """A decoder's dimensions.

    Attributes:
        inv_freq: float32 `[head_dim / 2]`, radians per position of each rotated pair, RoPE scaling
            applied.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    tie_word_embeddings: bool
    inv_freq: npt.NDArray[np.float32]


def read_config(folder: Path) -> DecoderConfig:
    """Read `config.json`.

    Raises:
        ConfigurationError: It is missing, malformed, or asks for something that no graph builder
            here can express; the message names the key.
    """
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigurationError(f"{folder} has no config.json") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON") from error
    try:
        return _parse(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path}: missing or invalid {error}") from error


def _parse(raw: Mapping[str, Any]) -> DecoderConfig:
    model_type = raw["model_type"]
    if model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ConfigurationError(f"model_type {model_type!r} is not one of {known}")
    if raw.get("hidden_act", "silu") != "silu":
        raise ConfigurationError(f"hidden_act {raw['hidden_act']!r} is not silu")
    if raw.get("use_sliding_window"):
        raise ConfigurationError("use_sliding_window is not supported")
    if raw.get("partial_rotary_factor", 1) != 1:
        raise ConfigurationError("partial_rotary_factor is not supported")
    num_heads = int(raw["num_attention_heads"])
    hidden_size = int(raw["hidden_size"])
    head_dim = int(raw.get("head_dim") or hidden_size // num_heads)
    return DecoderConfig(
        family=FAMILIES[model_type],
        vocab_size=int(raw["vocab_size"]),
        hidden_size=hidden_size,
        intermediate_size=int(raw["intermediate_size"]),
        num_layers=int(raw["num_hidden_layers"]),
        num_heads=num_heads,
        num_kv_heads=int(raw.get("num_key_value_heads") or num_heads),
        head_dim=head_dim,
        rms_norm_eps=float(raw["rms_norm_eps"]),
        max_position_embeddings=int(raw["max_position_embeddings"]),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        inv_freq=_inverse_frequencies(raw, head_dim),
    )


def _inverse_frequencies(raw: Mapping[str, Any], head_dim: int) -> npt.NDArray[np.float32]:
    """RoPE frequencies in float32, as transformers computes them (`modeling_rope_utils.py`)."""
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta") or raw.get("rope_theta") or 10000.0)
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    inv_freq = np.float32(1) / np.float32(theta) ** exponents
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return inv_freq
    if kind == "linear":
        return inv_freq / np.float32(rope["factor"])
    if kind == "llama3":
        return _llama3_frequencies(inv_freq, rope)
    raise ConfigurationError(f"rope type {kind!r} is not one of default, linear, llama3")


def _llama3_frequencies(
    inv_freq: npt.NDArray[np.float32], rope: Mapping[str, Any]
) -> npt.NDArray[np.float32]:
    """Llama 3.1's scaling: long wavelengths slowed by `factor`, a smooth ramp in between."""
    factor, trained_len = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    wavelengths = 2 * math.pi / inv_freq
    smooth: npt.NDArray[np.float32] = np.clip(
        (trained_len / wavelengths - low) / (high - low), 0, 1
    ).astype(np.float32)
    slowed = inv_freq / np.float32(factor)
    return slowed + smooth * (inv_freq - slowed)

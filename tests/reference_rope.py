"""Rotary position embeddings for the reference decoder, in float64, one pair after the other.

Written from the formulas of the papers: RoPE (arXiv 2104.09864), YaRN (2309.00071), LongRoPE
(2402.13753), and Llama 3.1's model code; a loop over pairs, so that no vectorised slip is shared
with the exporter.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def rotate(x: Array, config: dict[str, Any], max_len: int, *, is_local: bool) -> Array:
    """Rotate queries or keys `[heads, length, head_dim]` of the positions 0 to length - 1.

    Args:
        x: Not changed.
        config: A parsed config.json with `rope_theta` and maybe `rope_scaling`.
        max_len: Positions the decoder is for.
        is_local: Whether a layer of Gemma 3 with a sliding window.
    """
    rotary_dim = int(x.shape[-1] * config.get("partial_rotary_factor", 1))
    scaling = {} if is_local else config.get("rope_scaling") or {}
    theta = config["rope_local_base_freq"] if is_local else config["rope_theta"]
    half = rotary_dim // 2
    positions, rotated = np.arange(x.shape[1]), x.copy()
    for pair in range(half):
        frequency, factor = scale_frequency(theta, pair, rotary_dim, config, scaling, max_len)
        cos = np.cos(positions * frequency) * factor
        sin = np.sin(positions * frequency) * factor
        first, second = x[..., pair], x[..., pair + half]
        rotated[..., pair] = first * cos - second * sin
        rotated[..., pair + half] = second * cos + first * sin
    return rotated


def scale_frequency(
    theta: float,
    pair: int,
    rotary_dim: int,
    config: dict[str, Any],
    scaling: dict[str, Any],
    max_len: int,
) -> tuple[float, float]:
    """One pair's radians per position, and the factor of its cosine and sine."""
    frequency = theta ** (-2 * pair / rotary_dim)
    kind = scaling.get("rope_type", "default")
    original_len = config.get("original_max_position_embeddings") or scaling.get(
        "original_max_position_embeddings", config["max_position_embeddings"]
    )
    if kind == "linear":
        return frequency / scaling["factor"], 1.0
    turns = original_len * frequency / (2 * math.pi)  # within the length trained at first
    if kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        kept = min(1.0, max(0.0, (turns - low) / (high - low)))
        return frequency * (kept + (1 - kept) / scaling["factor"]), 1.0
    if kind == "yarn":

        def pair_with(number: float) -> float:
            wavelength = original_len / (2 * math.pi * number)
            return rotary_dim * math.log(wavelength) / (2 * math.log(theta))

        first, last = max(0, math.floor(pair_with(32))), math.ceil(pair_with(1))
        slowed = min(1.0, max(0.0, (pair - first) / (min(last, rotary_dim - 1) - first)))
        factor = scaling["factor"]
        return frequency * (1 - slowed + slowed / factor), 0.1 * math.log(factor) + 1
    if kind == "longrope":
        ratio = config["max_position_embeddings"] / original_len
        attention = math.sqrt(1 + math.log(ratio) / math.log(original_len)) if ratio > 1 else 1.0
        name = "long_factor" if max_len > original_len else "short_factor"
        return frequency / scaling[name][pair], attention
    assert kind == "default"
    return frequency, 1.0

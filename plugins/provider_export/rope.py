"""Rotary position embeddings: frequencies and their scaling, as transformers computes them.

Everything is float32, formula by formula after `modeling_rope_utils.py` of transformers, because a
frequency that differs in its last bit turns a key by a visible angle 100,000 positions on.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from provider_core import ConfigurationError

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Rope:
    """One rotation; a decoder has one for all layers, or one for each type of layer.

    Attributes:
        inv_freq: float32 `[rotary_dim / 2]`, radians per position of each rotated pair. Dimensions
            of a head beyond `rotary_dim` are not rotated.
        attention_factor: Cosines and sines are multiplied by it.
        name: Tells the rotations of one decoder apart; empty where there is only one.
        remark: What whoever exports should know about the scaling; empty for nothing.
    """

    inv_freq: Array
    attention_factor: float = 1.0
    name: str = ""
    remark: str = ""

    @property
    def rotary_dim(self) -> int:
        """Dimensions of a head that are rotated."""
        return 2 * len(self.inv_freq)


def make_rope(
    rope: Mapping[str, Any], *, head_dim: int, config_len: int, max_len: int, name: str = ""
) -> Rope:
    """Compute a rotation from its table in config.json.

    Args:
        rope: `rope_parameters` or `rope_scaling`, with `rope_type`, `rope_theta` and
            `original_max_position_embeddings` filled in.
        head_dim: Of queries and keys.
        config_len: `max_position_embeddings` of config.json.
        max_len: Positions that the exported decoder is for, at most `config_len`; `longrope`
            chooses its factors by it.
        name: Of the rotation.

    Raises:
        ConfigurationError: The type is not known here, a list has the wrong length, or the numbers
            come to nothing finite.
        KeyError: The table lacks a key that its type needs.
    """
    dim = int(head_dim * float(rope.get("partial_rotary_factor") or 1))
    if not 0 < dim <= head_dim or dim % 2:
        raise ConfigurationError(
            f"partial_rotary_factor {rope['partial_rotary_factor']!r} rotates {dim} of head_dim's "
            f"{head_dim} dimensions, which is not a number of pairs"
        )
    with np.errstate(all="ignore"):
        exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
        periods: Array = np.float32(rope["rope_theta"]) ** exponents
        made = _scale(rope, periods, config_len, max_len, name)
    if not np.isfinite([*made.inv_freq, made.attention_factor]).all():
        raise ConfigurationError(f"the numbers of rope_type {rope['rope_type']!r} are not finite")
    return made


def _scale(
    rope: Mapping[str, Any], periods: Array, config_len: int, max_len: int, name: str
) -> Rope:
    """The rotation of each type; `periods` are positions per radian, unscaled."""
    kind = rope["rope_type"]
    inv_freq: Array = np.float32(1) / periods
    if kind == "default":
        return Rope(inv_freq, name=name)
    if kind == "linear":
        return Rope(inv_freq / np.float32(rope["factor"]), name=name)
    if kind == "llama3":
        return Rope(_scale_llama3(inv_freq, rope), name=name)
    if kind == "yarn":
        return Rope(_scale_yarn(periods, rope), _yarn_attention_factor(rope), name)
    if kind == "longrope":
        return _make_longrope(rope, periods, config_len, max_len, name)
    raise ConfigurationError(
        f"rope_type {kind!r} is not one of default, linear, llama3, yarn, longrope"
    )


def _scale_llama3(inv_freq: Array, rope: Mapping[str, Any]) -> Array:
    """Llama 3.1: long wavelengths slowed by `factor`, a smooth ramp in between."""
    factor, original_len = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    wavelengths = 2 * math.pi / inv_freq
    smooth: Array = np.clip((original_len / wavelengths - low) / (high - low), 0, 1).astype(
        np.float32
    )
    slowed = inv_freq / np.float32(factor)
    return slowed + smooth * (inv_freq - slowed)


def _scale_yarn(periods: Array, rope: Mapping[str, Any]) -> Array:
    """YaRN (arXiv 2309.00071): slow pairs that turn rarely within the trained length.

    A pair that makes `beta_fast` turns or more stays, one that makes `beta_slow` or fewer is slowed
    by `factor`; between them lies a ramp, linear in the pair's index.
    """
    factor, original_len = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    num_pairs = len(periods)

    def index_of(turns: float) -> float:
        period = original_len / (turns * 2 * math.pi)
        return num_pairs * math.log(period) / math.log(float(rope["rope_theta"]))

    first = index_of(float(rope.get("beta_fast") or 32))
    last = index_of(float(rope.get("beta_slow") or 1))
    if rope.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * num_pairs - 1)
    width = (last - first) or 0.001  # transformers' guard against a ramp without width
    ramp: Array = np.clip((np.arange(num_pairs) - first) / width, 0, 1).astype(np.float32)
    return (1 - ramp) / periods + ramp / (np.float32(factor) * periods)


def _yarn_attention_factor(rope: Mapping[str, Any]) -> float:
    """As given, or `0.1 * ln(factor) + 1` with the weights of `mscale` where there are any."""
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    log_factor = math.log(max(1.0, float(rope["factor"])))
    mscale, mscale_all_dim = rope.get("mscale"), rope.get("mscale_all_dim")
    if mscale and mscale_all_dim:
        return (0.1 * float(mscale) * log_factor + 1) / (
            0.1 * float(mscale_all_dim) * log_factor + 1
        )
    return 0.1 * log_factor + 1


def _make_longrope(
    rope: Mapping[str, Any], periods: Array, config_len: int, max_len: int, name: str
) -> Rope:
    """LongRoPE (arXiv 2402.13753) has two lists: for texts within the original length, and longer.

    transformers changes lists when a text outgrows that length, which would need every key in the
    cache to be rotated again; a decoder with a cache takes one list for all its texts. The factor
    `sqrt(1 + ln(factor) / ln(original length))` is the same for both.
    """
    original_len = int(rope["original_max_position_embeddings"])
    key = "long_factor" if max_len > original_len else "short_factor"
    scales = np.array(rope[key], np.float32)
    if scales.shape != periods.shape:
        raise ConfigurationError(
            f"{key} has {scales.size} numbers for {len(periods)} rotated pairs"
        )
    if rope.get("attention_factor") is not None:
        attention_factor = float(rope["attention_factor"])
    else:
        factor = max(1.0, float(rope.get("factor") or config_len / original_len))
        attention_factor = math.sqrt(1 + math.log(factor) / math.log(original_len))
    remark = f"longrope: built with {key} for texts of up to {max_len} tokens"
    if max_len > original_len:
        remark += f", short ones too; built for at most {original_len} it would take short_factor"
    return Rope(np.float32(1) / (scales * periods), attention_factor, name, remark)

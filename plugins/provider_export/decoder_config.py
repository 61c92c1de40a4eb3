"""What a decoder's `config.json` says, checked: only what the graph builders can honour passes."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from provider_core import ConfigurationError
from provider_export.families import FAMILIES, Family
from provider_export.rope import Rope, make_rope

CONFIG_FILE = "config.json"
ACTIVATIONS = ("silu", "gelu_pytorch_tanh")
SLIDING, FULL = "sliding_attention", "full_attention"  # transformers' words
LOCAL_ROPE = "_local"
MAX_SIZE, MAX_LAYERS = 2**24, 2**10  # beyond any decoder, and small enough to compute with
DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True, slots=True)
class Layer:
    """What differs between the layers of one decoder.

    Attributes:
        window: Positions that a query attends to, its own included; `None` for all before it.
        rope: The rotation of its queries and keys.
    """

    window: int | None
    rope: Rope


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """A decoder's dimensions.

    Attributes:
        activation: Of the MLP's gate, one of `ACTIVATIONS`.
        max_position_embeddings: Positions the exported decoder is for.
        attention_scale: Scores are multiplied by it.
        attention_softcap: Scores `s` become `c * tanh(s / c)`, before the mask; 0 for not.
        logits_softcap: Likewise for the logits.
        embedding_scale: Embeddings are multiplied by it.
        has_qkv_bias: Queries, keys and values are projected with biases.
        has_output_bias: Attention's output is projected with a bias.
        has_mlp_bias: The MLP's three projections have biases.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    layers: tuple[Layer, ...]
    rms_norm_eps: float
    activation: str
    max_position_embeddings: int
    tie_word_embeddings: bool
    attention_scale: float
    attention_softcap: float
    logits_softcap: float
    embedding_scale: float
    has_qkv_bias: bool
    has_output_bias: bool
    has_mlp_bias: bool

    @property
    def num_layers(self) -> int:
        """How many layers there are."""
        return len(self.layers)

    @property
    def ropes(self) -> tuple[Rope, ...]:
        """The rotations that some layer uses, each once."""
        return tuple({layer.rope.name: layer.rope for layer in self.layers}.values())

    @property
    def remarks(self) -> tuple[str, ...]:
        """What whoever exports should know."""
        return tuple(rope.remark for rope in self.ropes if rope.remark)


def read_config(folder: Path, max_model_len: int | None = None) -> DecoderConfig:
    """Read `config.json`.

    Args:
        folder: Holds it.
        max_model_len: Positions it will be exported for, if fewer than `max_position_embeddings`.

    Raises:
        ConfigurationError: It is missing, malformed, or asks for something that no graph builder
            here can express; the message names the key.
    """
    path = folder / CONFIG_FILE
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigurationError(f"{folder} has no {CONFIG_FILE}") from error
    except (RecursionError, ValueError) as error:
        raise ConfigurationError(f"{path} is not JSON, or nested too deeply") from error
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{path} holds no JSON object")
    try:
        return parse_config(raw, max_model_len)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path}: missing or invalid {error}") from error


def write_config(source: Path, out: Path, max_model_len: int) -> None:
    """Write the source's `config.json` into another folder, with the length it was exported for.

    Servers take the longest text they admit from there; nested configurations may not say it.

    Raises:
        ConfigurationError: It is nested too deeply.
    """
    path = source / CONFIG_FILE
    try:
        raw = json.loads(path.read_bytes())
        (raw.get("text_config") or raw)["max_position_embeddings"] = max_model_len
        text = json.dumps(raw, indent=2)
    except RecursionError as error:  # writing may take more of the stack than reading took
        raise ConfigurationError(f"{path} is nested too deeply") from error
    (out / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def parse_config(raw: Mapping[str, Any], max_model_len: int | None = None) -> DecoderConfig:
    """Check a parsed `config.json`; arguments and errors as `read_config` has them."""
    model_type = raw["model_type"]
    if model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ConfigurationError(f"model_type {model_type!r} is not one of {known}")
    family = FAMILIES[model_type]
    raw = {**family.defaults, **raw, **(raw.get("text_config") or {})}
    _refuse_what_is_not_honoured(family, raw)
    hidden_size, num_heads = _positive(raw, "hidden_size"), _positive(raw, "num_attention_heads")
    num_kv_heads = _positive(raw, "num_key_value_heads", num_heads)
    if num_heads % num_kv_heads:
        raise ConfigurationError(
            f"num_attention_heads {num_heads} is no multiple of num_key_value_heads {num_kv_heads}"
        )
    head_dim = _positive(raw, "head_dim", hidden_size // num_heads)
    config_len = _positive(raw, "max_position_embeddings")
    if max_model_len is not None and max_model_len > config_len:
        raise ConfigurationError(
            f"{max_model_len} positions are asked for, over the {config_len} of "
            "max_position_embeddings"
        )
    max_len = max_model_len or config_len
    has_attention_bias, has_mlp_bias = (
        key in family.bias_keys and bool(raw.get(key)) for key in ("attention_bias", "mlp_bias")
    )
    return DecoderConfig(
        family=family,
        vocab_size=_positive(raw, "vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=_positive(raw, "intermediate_size"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        layers=_read_layers(family, raw, head_dim, config_len, max_len),
        rms_norm_eps=_number(raw, "rms_norm_eps"),
        activation=_read_activation(raw),
        max_position_embeddings=max_len,
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        attention_scale=_number(raw, "query_pre_attn_scalar", head_dim) ** -0.5,
        attention_softcap=_number(raw, "attn_logit_softcapping", 0),
        logits_softcap=_number(raw, "final_logit_softcapping", 0),
        embedding_scale=_embedding_scale(raw, hidden_size) if family.scales_embeddings else 1.0,
        has_qkv_bias=family.has_qkv_bias or has_attention_bias,
        has_output_bias=has_attention_bias,
        has_mlp_bias=has_mlp_bias,
    )


def _refuse_what_is_not_honoured(family: Family, raw: Mapping[str, Any]) -> None:
    """Keys that change what a model computes, in ways that no graph here follows."""
    if raw.get("quantization_config") is not None:
        raise ConfigurationError("quantization_config is not supported, not even an empty one")
    if raw.get("use_bidirectional_attention"):
        raise ConfigurationError("use_bidirectional_attention is not supported")
    if raw.get("attn_logit_softcapping") and not family.caps_attention:
        raise ConfigurationError("attn_logit_softcapping is not supported for this model_type")


def _read_activation(raw: Mapping[str, Any]) -> str:
    key = "hidden_activation" if raw.get("hidden_activation") else "hidden_act"
    activation: str = raw.get(key, "silu")
    if activation not in ACTIVATIONS:
        raise ConfigurationError(f"{key} {activation!r} is not one of {', '.join(ACTIVATIONS)}")
    return activation


def _embedding_scale(raw: Mapping[str, Any], hidden_size: int) -> float:
    """The square root of the hidden size, rounded as the model was trained: to its own dtype."""
    name = raw.get("dtype") or raw.get("torch_dtype") or "float32"
    if name not in DTYPES:
        raise ConfigurationError(f"torch_dtype {name!r} is not one of {', '.join(DTYPES)}")
    return float(np.sqrt(np.float32(hidden_size)).astype(DTYPES[name]))


def _read_layers(
    family: Family, raw: Mapping[str, Any], head_dim: int, config_len: int, max_len: int
) -> tuple[Layer, ...]:
    """Window and rotation of each layer; a window that no text outgrows is none."""
    kinds = _layer_kinds(family, raw)
    window = _positive(raw, "sliding_window") if SLIDING in kinds else max_len
    ropes = {
        kind: make_rope(
            _rope_table(family, raw, kind),
            head_dim=head_dim,
            config_len=config_len,
            max_len=max_len,
            name=LOCAL_ROPE if family.has_local_rope and kind == SLIDING else "",
        )
        for kind in set(kinds)
    }
    return tuple(
        Layer(window if kind == SLIDING and window < max_len else None, ropes[kind])
        for kind in kinds
    )


def _layer_kinds(family: Family, raw: Mapping[str, Any]) -> list[str]:
    num_layers = _positive(raw, "num_hidden_layers", limit=MAX_LAYERS)
    if kinds := raw.get("layer_types"):
        unknown = set(kinds) - {SLIDING, FULL}
        if unknown or len(kinds) != num_layers:
            raise ConfigurationError(
                f"layer_types {sorted(set(kinds))} must be {num_layers} of {SLIDING} and {FULL}"
            )
        return list(kinds)
    return [SLIDING if family.is_sliding(raw, layer) else FULL for layer in range(num_layers)]


def _rope_table(family: Family, raw: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """A rotation's table, from either of two places.

    Up to version 4, transformers wrote `rope_theta` and `rope_scaling` (which local rotations
    ignored), and since then the one table `rope_parameters`, by kind of layer where they differ.
    """
    table: dict[str, Any] = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    theta, is_local = raw.get("rope_theta"), family.has_local_rope and kind == SLIDING
    if {SLIDING, FULL} & set(table):
        if not family.has_local_rope:
            raise ConfigurationError("rope_parameters by layer type are not supported here")
        table = dict(table.get(kind) or {})
    elif is_local:
        table = {}
    if is_local:
        theta = raw["rope_local_base_freq"]
    table["rope_theta"] = float(table.get("rope_theta") or theta or 10_000.0)
    share = table.setdefault("partial_rotary_factor", raw.get("partial_rotary_factor") or 1)
    if share != 1 and not family.rotates_partly:
        raise ConfigurationError("partial_rotary_factor is not supported for this model_type")
    original_len = raw.get("original_max_position_embeddings")
    if original_len is not None:
        table["original_max_position_embeddings"] = original_len
    table.setdefault("original_max_position_embeddings", raw["max_position_embeddings"])
    kind_of_rope = table.get("rope_type") or table.get("type") or "default"
    table["rope_type"] = family.rope_aliases.get(kind_of_rope, kind_of_rope)
    return table


def _positive(
    raw: Mapping[str, Any], key: str, otherwise: int | None = None, limit: int = MAX_SIZE
) -> int:
    """A whole number from 1 to `limit`; `otherwise` where it is missing or null."""
    value = raw.get(key)
    if value is None:
        value = raw[key] if otherwise is None else otherwise
    if not isinstance(value, int) or not 1 <= value <= limit:
        raise ConfigurationError(f"{key} {value!r} is not a whole number from 1 to {limit}")
    return value


def _number(raw: Mapping[str, Any], key: str, otherwise: float | None = None) -> float:
    """A positive finite number; `otherwise` where it is missing, null or 0, if there is one."""
    value = raw.get(key)
    if otherwise is not None and (value is None or value == 0):
        return float(otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(f"{key} {value!r} is not a positive number")
    return float(value)

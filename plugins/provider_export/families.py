"""The model families that can be exported, and how each differs from Llama."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Config = Mapping[str, Any]  # a parsed config.json


def _no_layer(_config: Config, _layer: int) -> bool:
    return False


def _all_layers_if_set(config: Config, _layer: int) -> bool:
    return config["sliding_window"] is not None


def _upper_layers_if_used(config: Config, layer: int) -> bool:
    used: bool = config["use_sliding_window"] and layer >= config["max_window_layers"]
    return used


def _all_but_every_nth(config: Config, layer: int) -> bool:
    return (layer + 1) % int(config["sliding_window_pattern"]) != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How a family differs from Llama.

    Attributes:
        defaults: Keys that config.json may leave out although the model needs them, with the
            values that transformers' configuration class gives them.
        is_sliding: Whether a layer, counted from 0, attends to a sliding window, where config.json
            has no `layer_types`.
        has_qk_norm: An RMS norm over each head of queries and keys, before the rotation.
        has_post_norms: Attention and MLP have a norm behind them too, inside the residual branch.
        has_fused_projections: Queries, keys and values are one tensor, gate and up another.
        has_qkv_bias: Queries, keys and values have biases, whatever config.json says.
        bias_keys: Which of `attention_bias` and `mlp_bias` are honoured.
        norm_offset: Added to every norm's weight, which is stored as the difference from it.
        scales_embeddings: Embeddings are multiplied by the square root of the hidden size.
        rotates_partly: `partial_rotary_factor` is honoured.
        has_local_rope: Layers with a sliding window have a rotation of their own.
        rope_aliases: Early names of rope types in this family's checkpoints.
        caps_attention: `attn_logit_softcapping` is honoured.
    """

    defaults: Config = field(default_factory=dict)
    is_sliding: Callable[[Config, int], bool] = _no_layer
    has_qk_norm: bool = False
    has_post_norms: bool = False
    has_fused_projections: bool = False
    has_qkv_bias: bool = False
    bias_keys: frozenset[str] = frozenset()
    norm_offset: float = 0.0
    scales_embeddings: bool = False
    rotates_partly: bool = False
    has_local_rope: bool = False
    rope_aliases: Mapping[str, str] = field(default_factory=dict)
    caps_attention: bool = False


_ATTENTION_BIAS = frozenset({"attention_bias"})
_QWEN_DEFAULTS = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
_GEMMA_DEFAULTS = {
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
_GEMMA3 = Family(
    defaults=_GEMMA_DEFAULTS
    | {  # multimodal checkpoints leave these out
        "max_position_embeddings": 131_072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "rope_local_base_freq": 10_000.0,
        "rope_theta": 1_000_000.0,
        "sliding_window_pattern": 6,
        "vocab_size": 262_208,
    },
    is_sliding=_all_but_every_nth,
    has_qk_norm=True,
    has_post_norms=True,
    bias_keys=_ATTENTION_BIAS,
    norm_offset=1.0,
    scales_embeddings=True,
    has_local_rope=True,
)
FAMILIES: Mapping[str, Family] = {
    "llama": Family(bias_keys=_ATTENTION_BIAS | {"mlp_bias"}),
    "mistral": Family(defaults={"sliding_window": 4096}, is_sliding=_all_layers_if_set),
    "qwen2": Family(defaults=_QWEN_DEFAULTS, is_sliding=_upper_layers_if_used, has_qkv_bias=True),
    "qwen3": Family(
        defaults=_QWEN_DEFAULTS | {"head_dim": 128},
        is_sliding=_upper_layers_if_used,
        has_qk_norm=True,
        bias_keys=_ATTENTION_BIAS,
    ),
    "phi3": Family(
        defaults={"sliding_window": None, "original_max_position_embeddings": 4096},
        is_sliding=_all_layers_if_set,
        has_fused_projections=True,
        rotates_partly=True,
        rope_aliases={"su": "longrope", "yarn": "longrope"},
    ),
    "gemma2": Family(
        defaults=_GEMMA_DEFAULTS
        | {
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "sliding_window_pattern": 2,
        },
        is_sliding=_all_but_every_nth,
        has_post_norms=True,
        bias_keys=_ATTENTION_BIAS,
        norm_offset=1.0,
        scales_embeddings=True,
        caps_attention=True,
    ),
    "gemma3_text": _GEMMA3,
    "gemma3": _GEMMA3,
}
"""By `model_type` of config.json. `gemma3` is multimodal: its `text_config` is exported."""

"""Random checkpoints in the Hugging Face layout, small enough to run in milliseconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

Array = npt.NDArray[np.float32]

_GEMMA = {
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 24,  # not head_dim, as in Gemma 2 27B
    "num_hidden_layers": 3,
    "sliding_window": 12,
    "tie_word_embeddings": True,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"architectures": ["LlamaForCausalLM"]},
    "mistral": {"architectures": ["MistralForCausalLM"], "sliding_window": 10},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True},
    "phi3": {
        "architectures": ["Phi3ForCausalLM"],
        "hidden_size": 128,
        "head_dim": 32,
        "pad_token_id": 0,
        "partial_rotary_factor": 0.5,
        "sliding_window": 21,
        "original_max_position_embeddings": 512,
    },
    "gemma2": {
        "architectures": ["Gemma2ForCausalLM"],
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0,
        **_GEMMA,
    },
    "gemma3_text": {
        "architectures": ["Gemma3ForCausalLM"],
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 3,
        **_GEMMA,
    },
}
"""How each family's tiny configuration differs from Llama's, by `model_type`."""

_LONGROPE = {
    "partial_rotary_factor": 1.0,
    "rope_scaling": {
        "rope_type": "longrope",
        "short_factor": [1 + pair / 16 for pair in range(16)],
        "long_factor": [1.5 + pair for pair in range(16)],
    },
}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
_WINDOW = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in FAMILIES},
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama with llama3 scaling": ("llama", {"rope_scaling": _LLAMA3}),
    "mistral without a window": ("mistral", {"sliding_window": None}),
    "qwen2 with a window": ("qwen2", _WINDOW),
    "qwen3 with yarn": ("qwen3", {"rope_scaling": _YARN}),
    "phi3 with short factors": ("phi3", {**_LONGROPE, "original_max_position_embeddings": 64}),
    "phi3 with long factors": ("phi3", {**_LONGROPE, "original_max_position_embeddings": 32}),
}
"""Family and changes to its tiny configuration, by a name for people."""


def write_checkpoint(folder: Path, model_type: str = "qwen3", **overrides: Any) -> Path:
    """Write config.json and model.safetensors of a random model.

    Args:
        folder: Made if it is missing.
        model_type: One of `FAMILIES`.
        overrides: Replace keys of the default configuration.
    """
    config: dict[str, Any] = {
        "model_type": model_type,
        "hidden_act": "silu",
        "vocab_size": 96,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        **FAMILIES[model_type],
        **overrides,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_random_tensors(config), folder / "model.safetensors")
    return folder


def write_checkpoint_of(variant: str, folder: Path) -> Path:
    """Write a checkpoint of one of `VARIANTS`."""
    model_type, changes = VARIANTS[variant]
    return write_checkpoint(folder, model_type, **changes)


def max_model_len_of(variant: str) -> int | None:
    """Positions to export one of `VARIANTS` for: longrope chooses its factors by them."""
    return 64 if variant == "phi3 with short factors" else None


def write_multimodal(text_folder: Path, folder: Path, prefix: str) -> Path:
    """Wrap a text checkpoint of Gemma 3 as multimodal ones are: nested, beside a vision tower.

    Args:
        text_folder: A `gemma3_text` checkpoint.
        folder: Made if it is missing.
        prefix: What stands before the text decoder's tensors in place of `model`; it was
            `language_model.model` at first, and `model.language_model` since.
    """
    config = json.loads((text_folder / "config.json").read_text())
    nested = {"model_type": "gemma3", "text_config": config, "vision_config": {"hidden_size": 8}}
    tensors = load_file(text_folder / "model.safetensors")
    renamed = {name.replace("model", prefix, 1): tensor for name, tensor in tensors.items()}
    renamed["vision_tower.model.embeddings.weight"] = np.ones((2, 8), np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(nested))
    save_file(renamed, folder / "model.safetensors")
    return folder


def _random_tensors(config: dict[str, Any]) -> dict[str, Array]:
    rng = np.random.default_rng(7)

    def normal(*shape: int, spread: float) -> Array:
        return rng.normal(0, spread, shape).astype(np.float32)

    family, hidden = config["model_type"], config["hidden_size"]
    is_gemma = family.startswith("gemma")
    embedding_spread = hidden**-0.5 if is_gemma else 1  # Gemma multiplies by the root
    tensors = {"model.embed_tokens.weight": normal(config["vocab_size"], hidden, spread=1)}
    tensors["model.embed_tokens.weight"] *= np.float32(embedding_spread)
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = normal(config["vocab_size"], hidden, spread=1)
    norms = {"model.norm": hidden}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for name, (rows, columns) in _linear_shapes(config).items():
            spread = 2 / np.sqrt(columns)
            tensors[f"{prefix}.{name}.weight"] = normal(rows, columns, spread=spread)
            if _has_bias(config, name):
                tensors[f"{prefix}.{name}.bias"] = normal(rows, spread=0.5)
        norms |= {f"{prefix}.{name}": size for name, size in _norm_sizes(config).items()}
    for name, size in norms.items():  # Gemma stores a norm's weight less one
        tensors[f"{name}.weight"] = normal(size, spread=0.1) + np.float32(not is_gemma)
    return tensors


def _linear_shapes(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    hidden, inner, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q_size, kv_size = (
        config[key] * head_dim for key in ("num_attention_heads", "num_key_value_heads")
    )
    shared = {"self_attn.o_proj": (hidden, q_size), "mlp.down_proj": (hidden, inner)}
    if config["model_type"] == "phi3":
        return {
            "self_attn.qkv_proj": (q_size + 2 * kv_size, hidden),
            "mlp.gate_up_proj": (2 * inner, hidden),
            **shared,
        }
    return {
        "self_attn.q_proj": (q_size, hidden),
        "self_attn.k_proj": (kv_size, hidden),
        "self_attn.v_proj": (kv_size, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        **shared,
    }


def _has_bias(config: dict[str, Any], name: str) -> bool:
    if name.startswith("mlp"):
        return bool(config.get("mlp_bias"))
    is_input = name != "self_attn.o_proj"
    return bool(config.get("attention_bias")) or (config["model_type"] == "qwen2" and is_input)


def _norm_sizes(config: dict[str, Any]) -> dict[str, int]:
    family, hidden = config["model_type"], config["hidden_size"]
    sizes = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
    if family.startswith("gemma"):
        sizes |= {"pre_feedforward_layernorm": hidden, "post_feedforward_layernorm": hidden}
    if family in {"qwen3", "gemma3_text"}:
        sizes |= {f"self_attn.{part}_norm": config["head_dim"] for part in ("q", "k")}
    return sizes

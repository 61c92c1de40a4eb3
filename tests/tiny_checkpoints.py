"""Random checkpoints in the Hugging Face layout, small enough to run in milliseconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def write_checkpoint(folder: Path, model_type: str = "qwen3", **overrides: Any) -> Path:
    """Write config.json and model.safetensors of a random model.

    Args:
        folder: Made if it is missing.
        model_type: `llama`, `qwen2` (with biases) or `qwen3` (with QK norms).
        overrides: Replace keys of the default configuration.
    """
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[model_type]],
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
        "tie_word_embeddings": model_type != "llama",
        "bos_token_id": 0,
        "eos_token_id": 1,
    } | overrides
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_random_tensors(config), folder / "model.safetensors")
    return folder


def _random_tensors(config: dict[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(7)

    def normal(*shape: int, spread: float) -> npt.NDArray[np.float32]:
        return rng.normal(0, spread, shape).astype(np.float32)

    hidden, inner, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q_size, kv_size = (
        config[key] * head_dim for key in ("num_attention_heads", "num_key_value_heads")
    )
    tensors = {
        "model.embed_tokens.weight": normal(config["vocab_size"], hidden, spread=1),
        "model.norm.weight": 1 + normal(hidden, spread=0.1),
    }
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = normal(config["vocab_size"], hidden, spread=1)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        shapes = {
            "self_attn.q_proj": (q_size, hidden),
            "self_attn.k_proj": (kv_size, hidden),
            "self_attn.v_proj": (kv_size, hidden),
            "self_attn.o_proj": (hidden, q_size),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        for name, (rows, columns) in shapes.items():
            spread = 2 / np.sqrt(columns)
            tensors[f"{prefix}.{name}.weight"] = normal(rows, columns, spread=spread)
            if config["model_type"] == "qwen2" and name[-6] in "qkv":
                tensors[f"{prefix}.{name}.bias"] = normal(rows, spread=0.5)
        norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
        if config["model_type"] == "qwen3":
            norms |= {"self_attn.q_norm": head_dim, "self_attn.k_norm": head_dim}
        for name, size in norms.items():
            tensors[f"{prefix}.{name}.weight"] = 1 + normal(size, spread=0.1)
    return tensors

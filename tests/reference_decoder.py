"""A plain forward pass in numpy, without a cache: what every exported decoder is compared with.

Written from the families' public model code in transformers, not from the exporter, and reads the
same Hugging Face folder that was exported. Float64, so that it is the more exact of the two.
"""

import json
from pathlib import Path
from typing import Any

import ml_dtypes  # registers bfloat16 with numpy
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

Array = npt.NDArray[np.float64]
assert ml_dtypes.bfloat16


class ReferenceDecoder:
    """Llama, Qwen2 or Qwen3 from a Hugging Face folder.

    Args:
        folder: Holds config.json.
        weights: Holds model.safetensors, if `folder` does not.
    """

    def __init__(self, folder: Path, weights: Path | None = None) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        tensors = load_file((weights or folder) / "model.safetensors")
        self._tensors: dict[str, Array] = {k: v.astype(np.float64) for k, v in tensors.items()}

    def logits(self, token_ids: list[int]) -> Array:
        """Logits of every position, float64 `[len(token_ids), vocab_size]`."""
        weights, eps = self._tensors, self.config["rms_norm_eps"]
        x = weights["model.embed_tokens.weight"][token_ids]
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}"
            x = x + self._attend(layer, rms(x, weights[f"{prefix}.input_layernorm.weight"], eps))
            h = rms(x, weights[f"{prefix}.post_attention_layernorm.weight"], eps)
            gate = self._linear(f"{prefix}.mlp.gate_proj", h)
            up = self._linear(f"{prefix}.mlp.up_proj", h)
            x = x + self._linear(f"{prefix}.mlp.down_proj", gate / (1 + np.exp(-gate)) * up)
        head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
        return rms(x, weights["model.norm.weight"], eps) @ head.T

    def greedy(self, prompt: list[int], num_tokens: int) -> list[int]:
        """The `num_tokens` likeliest continuations, one after the other."""
        token_ids = list(prompt)
        for _ in range(num_tokens):
            token_ids.append(int(self.logits(token_ids)[-1].argmax()))
        return token_ids[len(prompt) :]

    def _attend(self, layer: int, x: Array) -> Array:
        config, prefix = self.config, f"model.layers.{layer}.self_attn"
        num_heads, num_kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        query = self._heads(f"{prefix}.q_proj", x, num_heads)
        key = self._heads(f"{prefix}.k_proj", x, num_kv_heads)
        value = self._heads(f"{prefix}.v_proj", x, num_kv_heads)
        if config["model_type"] == "qwen3":
            query = rms(query, self._tensors[f"{prefix}.q_norm.weight"], config["rms_norm_eps"])
            key = rms(key, self._tensors[f"{prefix}.k_norm.weight"], config["rms_norm_eps"])
        query, key = self._rotate(query), self._rotate(key)
        group = num_heads // num_kv_heads
        key, value = np.repeat(key, group, axis=0), np.repeat(value, group, axis=0)
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
        length = len(x)
        scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended = scores / scores.sum(axis=-1, keepdims=True) @ value
        return self._linear(f"{prefix}.o_proj", attended.transpose(1, 0, 2).reshape(length, -1))

    def _heads(self, name: str, x: Array, num_heads: int) -> Array:
        projected = self._linear(name, x)
        return projected.reshape(len(x), num_heads, -1).transpose(1, 0, 2)

    def _linear(self, name: str, x: Array) -> Array:
        product = x @ self._tensors[f"{name}.weight"].T
        bias = self._tensors.get(f"{name}.bias")
        return product if bias is None else product + bias

    def _rotate(self, x: Array) -> Array:
        half = x.shape[-1] // 2
        inv_freq = 1.0 / self.config["rope_theta"] ** (np.arange(half) / half)
        angles = np.arange(x.shape[1])[:, np.newaxis] * inv_freq
        cos, sin = np.cos(angles), np.sin(angles)
        first, second = x[..., :half], x[..., half:]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def rms(x: Array, weight: Array, eps: float) -> Array:
    """Root-mean-square norm over the last axis."""
    scale: Array = np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps)
    return x / scale * weight

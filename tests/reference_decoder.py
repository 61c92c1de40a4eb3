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

from tests.reference_rope import rotate

Array = npt.NDArray[np.float64]
assert ml_dtypes.bfloat16


class ReferenceDecoder:
    """Llama, Mistral, Qwen2, Qwen3, Phi-3, Gemma 2 or Gemma 3 (text) from a Hugging Face folder.

    Args:
        folder: Holds config.json.
        weights: Holds model.safetensors, if `folder` does not.
        max_len: Positions the decoder is for, if not `max_position_embeddings`.
    """

    def __init__(
        self, folder: Path, weights: Path | None = None, max_len: int | None = None
    ) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        tensors = load_file((weights or folder) / "model.safetensors")
        self._tensors: dict[str, Array] = {k: v.astype(np.float64) for k, v in tensors.items()}
        self._family: str = self.config["model_type"]
        self._is_gemma = self._family.startswith("gemma")
        self._max_len: int = max_len or self.config["max_position_embeddings"]

    def logits(self, token_ids: list[int]) -> Array:
        """Logits of every position, float64 `[len(token_ids), vocab_size]`."""
        table = self._tensors["model.embed_tokens.weight"]
        x = table[token_ids]
        if self._is_gemma:
            x = x * np.sqrt(self.config["hidden_size"])
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}"
            attended = self._attend(layer, self._norm(f"{prefix}.input_layernorm", x))
            if self._is_gemma:
                x = x + self._norm(f"{prefix}.post_attention_layernorm", attended)
                moved = self._mlp(prefix, self._norm(f"{prefix}.pre_feedforward_layernorm", x))
                x = x + self._norm(f"{prefix}.post_feedforward_layernorm", moved)
            else:
                x = x + attended
                x = x + self._mlp(prefix, self._norm(f"{prefix}.post_attention_layernorm", x))
        head = self._tensors.get("lm_head.weight", table)
        logits = self._norm("model.norm", x) @ head.T
        cap = self.config.get("final_logit_softcapping")
        return np.tanh(logits / cap) * cap if cap else logits

    def greedy(self, prompt: list[int], num_tokens: int) -> list[int]:
        """The `num_tokens` likeliest continuations, one after the other."""
        token_ids = list(prompt)
        for _ in range(num_tokens):
            token_ids.append(int(self.logits(token_ids)[-1].argmax()))
        return token_ids[len(prompt) :]

    def _mlp(self, prefix: str, x: Array) -> Array:
        if self._family == "phi3":
            gate, up = np.split(self._linear(f"{prefix}.mlp.gate_up_proj", x), 2, axis=-1)
        else:
            gate = self._linear(f"{prefix}.mlp.gate_proj", x)
            up = self._linear(f"{prefix}.mlp.up_proj", x)
        activate = gelu_tanh if self._is_gemma else silu
        return self._linear(f"{prefix}.mlp.down_proj", activate(gate) * up)

    def _attend(self, layer: int, x: Array) -> Array:
        config, prefix = self.config, f"model.layers.{layer}.self_attn"
        num_heads, num_kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        query, key, value = self._project(prefix, x)
        query, key, value = (
            part.reshape(len(x), -1, config["head_dim"]).transpose(1, 0, 2)
            for part in (query, key, value)
        )
        if f"{prefix}.q_norm.weight" in self._tensors:
            query = self._norm(f"{prefix}.q_norm", query)
            key = self._norm(f"{prefix}.k_norm", key)
        window = self._window(layer)
        is_local = self._family == "gemma3_text" and window is not None
        query = rotate(query, config, self._max_len, is_local=is_local)
        key = rotate(key, config, self._max_len, is_local=is_local)
        group = num_heads // num_kv_heads
        key, value = np.repeat(key, group, axis=0), np.repeat(value, group, axis=0)
        scale = config.get("query_pre_attn_scalar", config["head_dim"])
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(scale)
        if cap := config.get("attn_logit_softcapping"):
            scores = np.tanh(scores / cap) * cap
        attended = softmax(np.where(self._mask(len(x), window), scores, -np.inf)) @ value
        return self._linear(f"{prefix}.o_proj", attended.transpose(1, 0, 2).reshape(len(x), -1))

    def _project(self, prefix: str, x: Array) -> list[Array]:
        """Queries, keys and values."""
        if self._family != "phi3":
            return [self._linear(f"{prefix}.{part}_proj", x) for part in "qkv"]
        q_size = self.config["num_attention_heads"] * self.config["head_dim"]
        kv_size = self.config["num_key_value_heads"] * self.config["head_dim"]
        packed = self._linear(f"{prefix}.qkv_proj", x)
        return np.split(packed, [q_size, q_size + kv_size], axis=-1)

    def _window(self, layer: int) -> int | None:
        """How many positions a query of this layer sees, its own included."""
        window: int | None = self.config.get("sliding_window")
        if self._family in {"mistral", "phi3"}:
            return window
        if self._family == "gemma2":
            return window if layer % 2 == 0 else None
        if self._family == "gemma3_text":
            is_global = (layer + 1) % self.config["sliding_window_pattern"] == 0
            return None if is_global else window
        is_used = self.config.get("use_sliding_window", False)
        return window if is_used and layer >= self.config["max_window_layers"] else None

    @staticmethod
    def _mask(length: int, window: int | None) -> npt.NDArray[np.bool_]:
        """True where the query of a row sees the key of a column."""
        query, key = np.arange(length)[:, np.newaxis], np.arange(length)
        return (key <= query) & (key > query - (window or length))

    def _linear(self, name: str, x: Array) -> Array:
        product: Array = x @ self._tensors[f"{name}.weight"].T
        bias = self._tensors.get(f"{name}.bias")
        return product if bias is None else product + bias

    def _norm(self, name: str, x: Array) -> Array:
        """Root-mean-square norm over the last axis."""
        weight = self._tensors[f"{name}.weight"] + self._is_gemma
        mean_square = np.square(x).mean(axis=-1, keepdims=True)
        normed: Array = x / np.sqrt(mean_square + self.config["rms_norm_eps"]) * weight
        return normed


def softmax(scores: Array) -> Array:
    """Along the last axis."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    normed: Array = weights / weights.sum(axis=-1, keepdims=True)
    return normed


def silu(x: Array) -> Array:
    """`x * sigmoid(x)`."""
    activated: Array = x / (1 + np.exp(-x))
    return activated


def gelu_tanh(x: Array) -> Array:
    """The tanh approximation of GELU."""
    activated: Array = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return activated

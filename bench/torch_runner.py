"""A plain PyTorch loop as a peer: the same weights, one kernel after the other.

A `ModelRunner` of the Llama and Qwen2 families without scaled rotations, written for comparison
only: what one gets from PyTorch without an inference engine.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F  # noqa: N812 - everybody calls it so

from provider_core import Batch, RunnerInfo


class WeightSource(Protocol):
    """Named tensors, as the exporter reads them."""

    def __contains__(self, name: str) -> bool: ...

    def read(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """One tensor."""
        ...


class TorchRunner:
    """Runs a decoder layer by layer.

    Args:
        config: Of a Hugging Face folder.
        weights: Of the same.
        device: PyTorch's name of it.
        dtype: Of weights, caches and activations.
        max_num_seqs: Slots.
        max_model_len: Positions of each.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        weights: WeightSource,
        *,
        device: str,
        dtype: torch.dtype,
        max_num_seqs: int,
        max_model_len: int,
    ) -> None:
        self._config, self._weights = config, weights
        self._device, self._dtype = device, dtype
        self._num_heads: int = config["num_attention_heads"]
        self._num_kv_heads: int = config["num_key_value_heads"]
        hidden: int = config["hidden_size"]
        self._head_dim: int = config.get("head_dim") or hidden // self._num_heads
        vocabulary = (config["vocab_size"], hidden)
        self._table = self._read("model.embed_tokens.weight", vocabulary)
        head = "lm_head.weight"
        is_tied = config["tie_word_embeddings"] or head not in weights
        self._head = self._table if is_tied else self._read(head, vocabulary)
        self._norm = self._read("model.norm.weight", (hidden,))
        self._layers = [self._read_layer(i) for i in range(config["num_hidden_layers"])]
        cache = (max_num_seqs, self._num_kv_heads, max_model_len, self._head_dim)
        self._caches = [
            (
                torch.zeros(cache, device=device, dtype=dtype),
                torch.zeros(cache, device=device, dtype=dtype),
            )
            for _ in self._layers
        ]
        self._cos, self._sin = self._rotations(max_model_len)
        self.info = RunnerInfo(
            backend="torch",
            backend_version=torch.__version__,
            device=device,
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            vocab_size=config["vocab_size"],
        )

    def warm_up(self) -> None:
        """Run a prefill and a decode of one row."""
        slot, start = np.zeros(1, np.int32), np.zeros(1, np.int32)
        for num_tokens in (8, 1):
            self.execute_model(
                Batch("prefill", slot, np.zeros((1, num_tokens), np.int64), start, 1)
            )

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Compute one step and store the new keys and values in the rows' slots."""
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = self._forward(batch).float().cpu().numpy()
        return logits.reshape(-1, self.info.vocab_size)

    def choose_greedily(self, batch: Batch) -> list[int]:
        """Compute one step, and choose the likeliest next id of each row on the device."""
        with torch.inference_mode():
            ids: list[int] = self._forward(batch)[:, -1].argmax(dim=-1).tolist()
        return ids

    def _forward(self, batch: Batch) -> torch.Tensor:
        """Logits `[n, num_logits, vocab_size]`, on the device."""
        first, (num_rows, num_new) = int(batch.slots[0]), batch.token_ids.shape
        starts = torch.from_numpy(batch.num_computed_tokens.astype(np.int64)).to(self._device)
        positions = starts[:, None] + torch.arange(num_new, device=self._device)
        end = int(batch.num_computed_tokens.max()) + num_new
        keys = torch.arange(end, device=self._device)
        mask = (keys <= positions[:, :, None])[:, None]
        x = self._table[torch.from_numpy(batch.token_ids).to(self._device)]
        rows = torch.arange(num_rows, device=self._device)[:, None]
        for layer, caches in zip(self._layers, self._caches, strict=True):
            slots = [cache[first : first + num_rows] for cache in caches]
            normed = self._normalize(x, layer["input_layernorm.weight"])
            query, key, value = (
                self._split(normed, layer, part, heads)
                for part, heads in (
                    ("q", self._num_heads),
                    ("k", self._num_kv_heads),
                    ("v", self._num_kv_heads),
                )
            )
            query, key = self._rotate(query, positions), self._rotate(key, positions)
            for slot, new in zip(slots, (key, value), strict=True):
                slot[rows, :, positions] = new.transpose(1, 2)
            seen_keys, seen_values = (slot[:, :, :end] for slot in slots)
            heads = F.scaled_dot_product_attention(
                query, seen_keys, seen_values, attn_mask=mask, enable_gqa=True
            )
            merged = heads.transpose(1, 2).reshape(num_rows, num_new, -1)
            x = x + F.linear(merged, layer["self_attn.o_proj.weight"])
            normed = self._normalize(x, layer["post_attention_layernorm.weight"])
            gate = F.silu(F.linear(normed, layer["mlp.gate_proj.weight"]))
            up = F.linear(normed, layer["mlp.up_proj.weight"])
            x = x + F.linear(gate * up, layer["mlp.down_proj.weight"])
        last = x[:, num_new - batch.num_logits :]
        return F.linear(self._normalize(last, self._norm), self._head)

    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` positions of one slot into another."""
        for caches in self._caches:
            for cache in caches:
                cache[target, :, :num_tokens] = cache[source, :, :num_tokens]

    def close(self) -> None:
        """Give the memory back."""
        self._layers, self._caches = [], []

    def _read(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(self._weights.read(name, shape)).to(self._device, self._dtype)

    def _read_layer(self, number: int) -> dict[str, torch.Tensor]:
        hidden, inner = self._config["hidden_size"], self._config["intermediate_size"]
        query, key = (n * self._head_dim for n in (self._num_heads, self._num_kv_heads))
        shapes: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (hidden,),
            "post_attention_layernorm.weight": (hidden,),
            "self_attn.q_proj.weight": (query, hidden),
            "self_attn.k_proj.weight": (key, hidden),
            "self_attn.v_proj.weight": (key, hidden),
            "self_attn.o_proj.weight": (hidden, query),
            "mlp.gate_proj.weight": (inner, hidden),
            "mlp.up_proj.weight": (inner, hidden),
            "mlp.down_proj.weight": (hidden, inner),
        }
        for part, size in (("q", query), ("k", key), ("v", key)):
            if f"model.layers.{number}.self_attn.{part}_proj.bias" in self._weights:
                shapes[f"self_attn.{part}_proj.bias"] = (size,)
        prefix = f"model.layers.{number}"
        return {name: self._read(f"{prefix}.{name}", shape) for name, shape in shapes.items()}

    def _split(
        self, x: torch.Tensor, layer: Mapping[str, torch.Tensor], part: str, num_heads: int
    ) -> torch.Tensor:
        """Queries, keys or values, `[rows, heads, tokens, head_dim]`."""
        prefix = f"self_attn.{part}_proj"
        flat = F.linear(x, layer[f"{prefix}.weight"], layer.get(f"{prefix}.bias"))
        return flat.view(*x.shape[:2], num_heads, self._head_dim).transpose(1, 2)

    def _normalize(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self._config["rms_norm_eps"])

    def _rotations(self, max_model_len: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines, `[positions, head_dim]`; the halves of a head are alike."""
        exponents = np.arange(0, self._head_dim, 2) / self._head_dim
        frequencies = self._config["rope_theta"] ** -exponents
        angles = np.outer(np.arange(max_model_len), np.concatenate([frequencies, frequencies]))
        cos, sin = (torch.from_numpy(of(angles)) for of in (np.cos, np.sin))
        return cos.to(self._device, self._dtype), sin.to(self._device, self._dtype)

    def _rotate(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat((-second, first), dim=-1)
        return x * self._cos[positions][:, None] + turned * self._sin[positions][:, None]

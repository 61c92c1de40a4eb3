"""The network: the Qwen3 layout, so that the weights load as `Qwen3ForCausalLM`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of the network; names as in `config.json`."""

    vocab_size: int = 2048
    hidden_size: int = 256
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    intermediate_size: int = 768
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 32_768


class Norm(nn.Module):  # type: ignore[misc, unused-ignore]
    """Root mean square norm with a learned scale."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the input scaled to unit mean square, times the weight."""
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return the heads turned by their positions; halves pair up as in Qwen3."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def angles(shape: Shape, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of positions 0 to `length`, each `[length, head_dim]`."""
    steps = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
    turned = torch.outer(torch.arange(length).float(), shape.rope_theta**-steps)
    both = torch.cat((turned, turned), dim=-1)
    return both.cos().to(dtype), both.sin().to(dtype)


class Attention(nn.Module):  # type: ignore[misc, unused-ignore]
    """Grouped-query attention with a norm on each query and key head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        size, head = shape.hidden_size, shape.head_dim
        self.q_proj = nn.Linear(size, shape.num_attention_heads * head, bias=False)
        self.k_proj = nn.Linear(size, shape.num_key_value_heads * head, bias=False)
        self.v_proj = nn.Linear(size, shape.num_key_value_heads * head, bias=False)
        self.o_proj = nn.Linear(shape.num_attention_heads * head, size, bias=False)
        self.q_norm = Norm(head, shape.rms_norm_eps)
        self.k_norm = Norm(head, shape.rms_norm_eps)

    def forward(
        self, x: Tensor, mask: Tensor, cos: Tensor, sin: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return what each position gathers, and the keys and values seen so far."""
        rows, length, _ = x.shape
        head = self.shape.head_dim
        q = self.q_norm(self.q_proj(x).view(rows, length, -1, head)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(rows, length, -1, head)).transpose(1, 2)
        v = self.v_proj(x).view(rows, length, -1, head).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        group = self.shape.num_attention_heads // self.shape.num_key_value_heads
        y = F.scaled_dot_product_attention(
            q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), attn_mask=mask
        )
        return self.o_proj(y.transpose(1, 2).reshape(rows, length, -1)), (k, v)


class FeedForward(nn.Module):  # type: ignore[misc, unused-ignore]
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input through the gated layer."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):  # type: ignore[misc, unused-ignore]
    """Attention, then SwiGLU, each behind a norm and added to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = FeedForward(shape)
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)

    def forward(
        self, x: Tensor, mask: Tensor, cos: Tensor, sin: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the stream after this layer, and its keys and values."""
        gathered, cache = self.self_attn(self.input_layernorm(x), mask, cos, sin, past)
        x = x + gathered
        return x + self.mlp(self.post_attention_layernorm(x)), cache


class Backbone(nn.Module):  # type: ignore[misc, unused-ignore]
    """Embeddings, layers and the last norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList([Layer(shape) for _ in range(shape.num_hidden_layers)])
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)


class Starter(nn.Module):  # type: ignore[misc, unused-ignore]
    """The language model; the output layer is the embedding table."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = shape or Shape()
        self.model = Backbone(self.shape)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                scale = 0.02 if "embed" in name else weight.shape[1] ** -0.5
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    scale /= (2 * self.shape.num_hidden_layers) ** 0.5
                nn.init.normal_(weight, std=scale)

    def hidden(
        self,
        ids: Tensor,
        mask: Tensor,
        cos: Tensor,
        sin: Tensor,
        past: list[tuple[Tensor, Tensor]] | None = None,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return the last hidden states `[rows, length, size]` and the cache of each layer."""
        x = self.model.embed_tokens(ids)
        caches: list[tuple[Tensor, Tensor]] = []
        for at, layer in enumerate(self.model.layers):
            x, cache = layer(x, mask, cos, sin, past[at] if past else None)
            caches.append(cache)
        return self.model.norm(x), caches

    def logits(self, hidden: Tensor) -> Tensor:
        """Return a score for each token of the vocabulary."""
        return F.linear(hidden, self.model.embed_tokens.weight)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        cos: Tensor,
        sin: Tensor,
        at: Tensor,
        targets: Tensor,
        weights: Tensor,
    ) -> Tensor:
        """Return the weighted mean loss at the flat positions `at`; all shapes are fixed."""
        x, _ = self.hidden(ids, mask, cos, sin)
        scores = self.logits(x.reshape(-1, x.shape[-1])[at])
        each = F.cross_entropy(scores.float(), targets, reduction="none")
        return (each * weights).sum() / weights.sum()

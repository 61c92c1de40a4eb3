"""Muon for the matrices, AdamW for the rest; full-precision copies of bfloat16 weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MUON_LR = 0.02
_ADAM_LR = 0.004


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return the nearest orthogonal matrices, roughly, by Newton-Schulz steps; `[n, r, c]`."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Optimiser:
    """One step over all weights; `scale` multiplies the rates.

    Args:
        model: Its weights may be bfloat16; the copies that are updated are float32.

    """

    def __init__(self, model: nn.Module) -> None:
        named = list(model.named_parameters())
        self._weights = dict(named)
        self.masters = {n: w.detach().float().clone() for n, w in named}
        self._first = {n: torch.zeros_like(w) for n, w in self.masters.items()}
        self._second = {
            n: torch.zeros_like(w) for n, w in self.masters.items() if not self._is_matrix(n)
        }
        self._groups: dict[tuple[int, ...], list[str]] = {}
        for name, weight in named:
            if self._is_matrix(name):
                self._groups.setdefault(tuple(weight.shape), []).append(name)
        self.steps = 0

    def _is_matrix(self, name: str) -> bool:
        return name.endswith("_proj.weight")

    def step(self, gradients: dict[str, Tensor], scale: float, momentum: float) -> None:
        """Update every weight from its float32 gradient."""
        self.steps += 1
        with torch.no_grad():
            for names in self._groups.values():
                self._step_matrices(names, gradients, scale, momentum)
            for name, second in self._second.items():
                grad = gradients[name]
                self._first[name].lerp_(grad, 0.1)
                second.lerp_(grad.square(), 0.05)
                first = self._first[name] / (1 - 0.9**self.steps)
                root = (second / (1 - 0.95**self.steps)).sqrt_().add_(1e-10)
                self._apply(name, first / root, _ADAM_LR * scale)

    def _step_matrices(
        self, names: list[str], gradients: dict[str, Tensor], scale: float, momentum: float
    ) -> None:
        """Update matrices of one shape together."""
        ahead = []
        for name in names:
            self._first[name].lerp_(gradients[name], 1 - momentum)
            ahead.append(gradients[name].lerp(self._first[name], momentum))
        stacked = torch.stack(ahead)
        ratio = max(1.0, stacked.shape[-2] / stacked.shape[-1]) ** 0.5
        for name, update in zip(names, orthogonal(stacked), strict=True):
            self.masters[name].mul_(1 - _MUON_LR * scale * 0.01)
            self._apply(name, update, _MUON_LR * scale * ratio)

    def _apply(self, name: str, update: Tensor, rate: float) -> None:
        self.masters[name].sub_(update, alpha=rate)
        self._weights[name].copy_(self.masters[name])

    def state(self) -> dict[str, object]:
        """Return everything needed to go on later."""
        return {
            "masters": self.masters,
            "first": self._first,
            "second": self._second,
            "steps": self.steps,
        }

    def restore(self, state: dict[str, object]) -> None:
        """Go on from what `state` returned."""
        with torch.no_grad():
            for mine, key in (
                (self.masters, "masters"),
                (self._first, "first"),
                (self._second, "second"),
            ):
                saved = state[key]
                if not isinstance(saved, dict):
                    message = f"not an optimiser state: {key}"
                    raise TypeError(message)
                for name in mine:
                    mine[name].copy_(saved[name])
            self.steps = int(str(state["steps"]))
            for name, weight in self._weights.items():
                weight.copy_(self.masters[name])

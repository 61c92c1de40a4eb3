"""Train the model from nothing.

`python -m provider_starter.recipe.train --minutes 85 --out DIR`
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from provider_starter.recipe.lexicon import Lexicon
from provider_starter.recipe.mixture import Mixture
from provider_starter.recipe.model import Shape, Starter, angles
from provider_starter.recipe.optimiser import Optimiser
from provider_starter.recipe.packing import Batch, Packer
from provider_starter.recipe.vocabulary import Encoder, letter_pieces, load

SHAPES = ((16, 384), (6, 1024))
_WARM_STEPS = 60
_DECAY_FROM = 0.45  # share of the time after which the rate falls
_DROPOUT = 0.08


def rate(progress: float, steps: int) -> float:
    """Return the factor on the learning rates at this share of the time."""
    warm = min(1.0, (steps + 1) / _WARM_STEPS)
    if progress < _DECAY_FROM:
        return warm
    return warm * max(0.0, (1 - progress) / (1 - _DECAY_FROM))


class Run:
    """One training run, which can be interrupted and taken up again.

    Args:
        out: Folder for checkpoints and weights.
        minutes: Wall-clock time that the whole run may take.
        seed: Of weights and data.

    """

    def __init__(self, out: Path, minutes: float, seed: int) -> None:
        torch.manual_seed(seed)
        self._out = out
        self._budget_s = minutes * 60
        self._model = Starter().bfloat16()
        self._optimiser = Optimiser(self._model)
        tokenizer = load()
        self._mixture = Mixture(seed, Lexicon(letter_pieces(tokenizer)))
        self._packer = Packer(self._mixture, Encoder(tokenizer, seed, _DROPOUT), SHAPES)
        self._step = torch.compile(self._model, dynamic=False)
        self._angles = {length: angles(Shape(), length, torch.bfloat16) for _, length in SHAPES}
        self._spent_s = 0.0
        self._tokens = 0
        self._weights_read = 0.0

    def go(self) -> None:
        """Train until the time is over, then save the weights."""
        self._resume()
        began = time.monotonic() - self._spent_s
        saved = logged = time.monotonic()
        mean, counted = 0.0, 0
        while (progress := (time.monotonic() - began) / self._budget_s) < 1:
            batch = self._packer.batch()
            mean += self._train(batch, progress)
            counted += 1
            self._tokens += batch.tokens
            now = time.monotonic()
            self._spent_s = now - began
            if counted == 50:
                steps, loss = self._optimiser.steps, mean / counted
                print(
                    f"{self._spent_s / 60:.1f} min step {steps} loss {loss:.4f} "
                    f"tokens {self._tokens / 1e6:.2f} M {now - logged:.0f} s",
                    flush=True,
                )
                mean, counted, logged = 0.0, 0, now
                self._reweigh()
            if now - saved > 300:
                self._save()
                saved = now
        self._save()
        print(f"done: {self._tokens} tokens, {self._optimiser.steps} steps")

    def _train(self, batch: Batch, progress: float) -> float:
        cos, sin = self._angles[batch.ids.shape[1]]
        loss = self._step(batch.ids, batch.mask, cos, sin, batch.at, batch.targets, batch.weights)
        loss.backward()
        momentum = min(0.95, 0.85 + self._optimiser.steps / 3000)
        self._optimiser.step(rate(progress, self._optimiser.steps), momentum)
        return float(loss.detach())

    def _reweigh(self) -> None:
        """Take up changed shares of the skills from `mixture.json`, if there is one."""
        path = self._out / "mixture.json"
        if path.exists() and path.stat().st_mtime > self._weights_read:
            self._weights_read = path.stat().st_mtime
            self._mixture.weights.update(json.loads(path.read_text()))
            print(f"shares: {self._mixture.weights}")

    def _save(self) -> None:
        state = {
            "optimiser": self._optimiser.state(),
            "spent_s": self._spent_s,
            "tokens": self._tokens,
            "random": self._mixture.draw.rng.getstate(),
        }
        torch.save(state, self._out / "checkpoint.part")
        (self._out / "checkpoint.part").replace(self._out / "checkpoint.pt")
        weights = {n: w.half().contiguous() for n, w in self._optimiser.masters.items()}
        save_file(weights, self._out / "model.part", metadata={"format": "pt"})
        (self._out / "model.part").replace(self._out / "model.safetensors")

    def _resume(self) -> None:
        path = self._out / "checkpoint.pt"
        if path.exists():
            state = torch.load(path, weights_only=False)
            self._optimiser.restore(state["optimiser"])
            self._spent_s, self._tokens = state["spent_s"], state["tokens"]
            self._mixture.draw.rng.setstate(state["random"])


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=85, help="wall-clock time of the run")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(os.cpu_count() or 1)
    Run(args.out, args.minutes, args.seed).go()


if __name__ == "__main__":
    main()

"""Train the model from nothing.

`python -m provider_starter.recipe.train --minutes 85 --out DIR`
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.multiprocessing.spawn import spawn

from provider_starter.recipe.lexicon import Lexicon
from provider_starter.recipe.mixture import Mixture
from provider_starter.recipe.model import Shape, Starter, angles
from provider_starter.recipe.optimiser import Optimiser
from provider_starter.recipe.packing import Packer
from provider_starter.recipe.vocabulary import Encoder, letter_pieces, load

SHAPES = ((8, 384), (3, 1024))  # rows and length in each worker
_WARM_STEPS = 60
_DECAY_FROM = 0.45  # share of the time after which the rate falls
_DROPOUT = 0.08
_LOG_STEPS = 50
_SAVE_S = 300.0


def rate(progress: float, steps: int) -> float:
    """Return the factor on the learning rates at this share of the time."""
    warm = min(1.0, (steps + 1) / _WARM_STEPS)
    if progress < _DECAY_FROM:
        return warm
    return warm * max(0.0, (1 - progress) / (1 - _DECAY_FROM))


class Run:
    """One worker of a training run, which can be interrupted and taken up again.

    Each worker has one thread and computes the gradient of its own rows; the workers meet once
    a step. Two threads in one process would wait for each other hundreds of times a step, which
    is slow where other programs use the same cores.

    Args:
        rank: Which worker this is; the first one keeps the time, logs and saves.
        workers: How many there are.
        out: Folder for checkpoints and weights.
        minutes: Wall-clock time that the whole run may take.
        seed: Of weights and data.

    """

    def __init__(self, rank: int, workers: int, out: Path, minutes: float, seed: int) -> None:
        torch.manual_seed(seed)
        self._rank, self._workers, self._out = rank, workers, out
        self._budget_s = minutes * 60
        self._model = Starter().bfloat16()
        self._optimiser = Optimiser(self._model)
        self._spent_s = 0.0
        self._tokens = 0
        self._resume()
        tokenizer = load()
        data_seed = f"{seed} {rank} {self._optimiser.steps}"
        self._mixture = Mixture(data_seed, Lexicon(letter_pieces(tokenizer)))
        self._packer = Packer(self._mixture, Encoder(tokenizer, seed, _DROPOUT), SHAPES)
        self._step = torch.compile(self._model, dynamic=False)
        self._angles = {length: angles(Shape(), length, torch.bfloat16) for _, length in SHAPES}
        self._weights_read = 0.0

    def go(self) -> None:
        """Train until the time is over, then save the weights."""
        began = time.monotonic() - self._spent_s
        saved = logged = time.monotonic()
        losses: list[float] = []
        progress = 0.0
        self._reweigh()
        while progress < 1:
            self._spent_s = time.monotonic() - began
            progress, loss = self._train(self._spent_s / self._budget_s)
            losses.append(loss)
            now = time.monotonic()
            if len(losses) == _LOG_STEPS:
                self._log(losses, now - logged)
                logged = now
                self._reweigh()
            if now - saved > _SAVE_S:
                self._save()
                saved = now
        self._save()

    def _train(self, progress: float) -> tuple[float, float]:
        """Take one step; return the first worker's progress and the mean loss."""
        batch = self._packer.batch()
        cos, sin = self._angles[batch.ids.shape[1]]
        loss = self._step(batch.ids, batch.mask, cos, sin, batch.at, batch.targets, batch.weights)
        loss.backward()
        named = dict(self._model.named_parameters())
        said = [progress if self._rank == 0 else 0.0, float(loss.detach()), float(batch.tokens)]
        pieces = [w.grad.float().reshape(-1) for w in named.values()]
        flat = torch.cat([*pieces, torch.tensor(said, dtype=torch.float32)])
        self._model.zero_grad()
        dist.all_reduce(flat)
        progress, loss_sum, tokens = flat[-3:].tolist()
        flat /= self._workers
        sizes = [w.numel() for w in named.values()]
        gradients = {
            name: piece.view(weight.shape)
            for (name, weight), piece in zip(named.items(), flat[:-3].split(sizes), strict=True)
        }
        self._tokens += int(tokens)
        momentum = min(0.95, 0.85 + self._optimiser.steps / 3000)
        self._optimiser.step(gradients, rate(progress, self._optimiser.steps), momentum)
        return progress, loss_sum / self._workers

    def _log(self, losses: list[float], seconds: float) -> None:
        if self._rank == 0:
            print(
                f"{self._spent_s / 60:.1f} min step {self._optimiser.steps} "
                f"loss {sum(losses) / len(losses):.4f} "
                f"tokens {self._tokens / 1e6:.2f} M {seconds:.0f} s",
                flush=True,
            )
        losses.clear()

    def _reweigh(self) -> None:
        """Take up changed shares of the skills from `mixture.json`, if there is one."""
        path = self._out / "mixture.json"
        if path.exists() and path.stat().st_mtime > self._weights_read:
            self._weights_read = path.stat().st_mtime
            self._mixture.weights.update(json.loads(path.read_text()))
            print(f"shares: {self._mixture.weights}", flush=True)

    def _save(self) -> None:
        if self._rank:
            return
        state = {
            "optimiser": self._optimiser.state(),
            "spent_s": self._spent_s,
            "tokens": self._tokens,
        }
        torch.save(state, self._out / "checkpoint.part")
        (self._out / "checkpoint.part").replace(self._out / "checkpoint.pt")
        weights = {n: w.half().contiguous() for n, w in self._optimiser.masters.items()}
        save_file(weights, self._out / "model.part", metadata={"format": "pt"})
        (self._out / "model.part").replace(self._out / "model.safetensors")

    def _resume(self) -> None:
        path = self._out / "checkpoint.pt"
        if path.exists():
            state = torch.load(path)
            self._optimiser.restore(state["optimiser"])
            self._spent_s, self._tokens = state["spent_s"], state["tokens"]


def work(rank: int, workers: int, out: Path, minutes: float, seed: int) -> None:
    """Join the other workers and train."""
    torch.set_num_threads(1)
    meeting = (out / "meeting").resolve()
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)
    Run(rank, workers, out, minutes, seed).go()
    dist.destroy_process_group()


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=85, help="wall-clock time of the run")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "meeting").unlink(missing_ok=True)
    spawn(work, (args.workers, args.out, args.minutes, args.seed), args.workers)


if __name__ == "__main__":
    main()

"""Run the trained weights with torch: greedy answers and scores, in batches."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from provider_starter.recipe.model import Shape, Starter, angles

_STOPS = (0, 2)
_ROWS = 40


class TorchModel:
    """The network with weights from a file, in float32.

    Args:
        weights: A `model.safetensors`.
        threads: CPU threads to use.

    """

    def __init__(self, weights: Path, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._model = Starter()
        self._model.load_state_dict({k: v.float() for k, v in load_file(weights).items()})
        self._model.eval().requires_grad_(requires_grad=False)

    def generate(self, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        """Return the greedy answer to each prompt, end mark included where it came."""
        answers: list[list[int]] = [[] for _ in prompts]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), _ROWS):
            some = order[start : start + _ROWS]
            found = self._answers([prompts[i] for i in some], max_new_tokens)
            for at, answer in zip(some, found, strict=True):
                answers[at] = answer
        return answers

    def _answers(self, prompts: list[list[int]], most: int) -> list[list[int]]:
        """Return the answers of one batch, padded on the left; positions are relative."""
        longest = max(map(len, prompts))
        cos, sin = angles(Shape(), longest + most, torch.float32)
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        seen = torch.zeros(len(prompts), longest + most, dtype=torch.bool)
        seen[:, longest:] = True
        for row, tokens in enumerate(prompts):
            ids[row, longest - len(tokens) :] = torch.tensor(tokens)
            seen[row, longest - len(tokens) : longest] = True
        causal = torch.ones(longest, longest, dtype=torch.bool).tril()
        itself = torch.eye(longest, dtype=torch.bool)  # padding sees itself, or it sees nothing
        mask = (causal & seen[:, None, None, :longest]) | itself
        hidden, past = self._model.hidden(ids, mask, cos[:longest], sin[:longest])
        answers: list[list[int]] = [[] for _ in prompts]
        open_rows = set(range(len(prompts)))
        for at in range(longest, longest + most):
            token = self._model.logits(hidden[:, -1]).argmax(dim=-1)
            for row in list(open_rows):
                answers[row].append(int(token[row]))
                if answers[row][-1] in _STOPS:
                    open_rows.discard(row)
            if not open_rows:
                break
            mask = seen[:, None, None, : at + 1]
            place = slice(at, at + 1)
            hidden, past = self._model.hidden(token[:, None], mask, cos[place], sin[place], past)
        return answers

    def score(self, sequences: list[list[int]]) -> list[list[float]]:
        """Return the log-probability of each token after those before it; 0 for the first."""
        out: list[list[float]] = []
        for tokens in sequences:
            ids = torch.tensor([tokens])
            length = len(tokens)
            cos, sin = angles(Shape(), length, torch.float32)
            causal = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
            hidden, _ = self._model.hidden(ids, causal, cos, sin)
            chances = self._model.logits(hidden)[0].log_softmax(dim=-1)
            found = chances[:-1].gather(1, ids[0, 1:, None])[:, 0]
            out.append([0.0, *found.tolist()])
        return out

"""Pack conversations into rows of fixed length, each seeing only itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from provider_starter.recipe.mixture import Mixture
from provider_starter.recipe.vocabulary import Encoder

Coded = tuple[list[int], list[bool]]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's worth of rows; `at` are flat positions whose next token is learned."""

    ids: Tensor  # [rows, length]
    mask: Tensor  # [rows, 1, length, length], added to the scores
    at: Tensor  # [learned]
    targets: Tensor  # [learned]
    weights: Tensor  # [learned], 0 where it only fills up
    tokens: int  # tokens that are no padding


class Packer:
    """Fills rows best-fit first from a stock of conversations.

    Args:
        mixture: Where conversations come from.
        encoder: Makes them ids.
        shapes: Rows and length of a normal batch, then of one for long conversations.

    """

    def __init__(
        self, mixture: Mixture, encoder: Encoder, shapes: tuple[tuple[int, int], tuple[int, int]]
    ) -> None:
        self._mixture = mixture
        self._encode = encoder
        self._shapes = shapes
        self._short: list[Coded] = []
        self._long: list[Coded] = []
        self._long_tokens = 0

    def batch(self) -> Batch:
        """Return the next batch: a long one whenever enough long conversations wait."""
        (rows, length), (long_rows, long_length) = self._shapes
        while len(self._short) < 400:  # enough to choose from
            coded = self._encode(self._mixture.one())
            if len(coded[0]) <= length:
                self._short.append(coded)
            elif len(coded[0]) <= long_length:
                self._long.append(coded)
                self._long_tokens += len(coded[0])
        if self._long_tokens > long_rows * long_length:
            taken = self._fill(self._long, long_rows, long_length, self._short)
            self._long_tokens = sum(len(c[0]) for c in self._long)
            return self._batch(taken, long_length)
        return self._batch(self._fill(self._short, rows, length, []), length)

    def _fill(
        self, stock: list[Coded], rows: int, length: int, rest: list[Coded]
    ) -> list[list[Coded]]:
        """Take conversations for each row, largest first, then `rest` to fill the gaps."""
        stock.sort(key=lambda c: len(c[0]))
        rest.sort(key=lambda c: len(c[0]))
        filled: list[list[Coded]] = []
        for number in range(rows):
            row: list[Coded] = []
            left = length
            if stock:  # start with any conversation, so that all lengths stay in play
                row.append(stock.pop((number * 7919) % len(stock)))
                left -= len(row[0][0])
            for source in (stock, rest):
                while (at := _largest(source, left)) >= 0:
                    row.append(source.pop(at))
                    left -= len(row[-1][0])
            filled.append(row)
        return filled

    def _batch(self, filled: list[list[Coded]], length: int) -> Batch:
        rows = len(filled)
        ids = torch.zeros(rows, length, dtype=torch.long)
        owner = torch.arange(length).neg().repeat(rows, 1)  # padding sees only itself
        at: list[int] = []
        targets: list[int] = []
        for number, row in enumerate(filled):
            start = 0
            for serial, (tokens, learned) in enumerate(row):
                end = start + len(tokens)
                ids[number, start:end] = torch.tensor(tokens)
                owner[number, start:end] = serial + 1
                for place in range(1, len(tokens)):
                    if learned[place]:
                        at.append(number * length + start + place - 1)
                        targets.append(tokens[place])
                start = end
        used = int((owner > 0).sum())
        same = owner[:, :, None] == owner[:, None, :]
        allowed = same & torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.zeros(rows, 1, length, length, dtype=torch.bfloat16)
        mask.masked_fill_(~allowed[:, None], float("-inf"))
        places = rows * length // 2
        weights = torch.zeros(places)
        weights[: len(at)] = 1.0
        pad = [0] * (places - len(at))
        return Batch(
            ids,
            mask,
            torch.tensor((at + pad)[:places]),
            torch.tensor((targets + pad)[:places]),
            weights,
            used,
        )


def _largest(stock: list[Coded], room: int) -> int:
    """Return where the longest conversation that fits stands in the sorted stock, or -1."""
    low, high = 0, len(stock)
    while low < high:
        middle = (low + high) // 2
        if len(stock[middle][0]) <= room:
            low = middle + 1
        else:
            high = middle
    return low - 1

"""Candidates chosen in numpy, plainly: in float64, sorting everything."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from provider_core.interfaces import Batch, Candidates
from provider_core.testing import ScriptedRunner

Bitmasks = Mapping[int, npt.NDArray[np.int32]]


def choose_candidates(
    logits: npt.NDArray[np.float32],
    k: int,
    inverse_temperatures: npt.NDArray[np.float32],
    bitmasks: Bitmasks,
) -> Candidates:
    """What a runner promises; equal logits are listed highest id first, as it may."""
    allowed = logits.astype(np.float64)
    for row, bitmask in bitmasks.items():
        bits = np.unpackbits(bitmask.view(np.uint8), bitorder="little")[: logits.shape[1]]
        allowed[row, bits == 0] = -np.inf
    columns = np.arange(logits.shape[1])
    order = np.stack([np.lexsort((-columns, -row))[:k] for row in allowed])
    with np.errstate(invalid="ignore", over="ignore"):
        distances = (allowed - allowed.max(axis=1, keepdims=True)) * inverse_temperatures[:, None]
        log_masses = np.log(np.exp(distances).sum(axis=1))
        log_sum_exps = np.logaddexp.reduce(logits.astype(np.float64), axis=1)
    return Candidates(
        token_ids=order.astype(np.int32),
        logits=np.take_along_axis(allowed, order, axis=1).astype(np.float32),
        log_masses=log_masses.astype(np.float32),
        log_sum_exps=log_sum_exps.astype(np.float32),
    )


class GivenLogits:
    """A `CandidateRunner` whose next step's logits are given.

    Args:
        logits: Of the step.
        k: Candidates of each row.
        error: Of `log_masses`, as a device may have one.

    Attributes:
        logits: float32 `[n, vocab_size]`.
        fetched: The rows of each `fetch_logits`.
        masked: The rows that came with a bitmask, of each step.
    """

    def __init__(self, logits: npt.NDArray[np.float32], k: int, *, error: float = 0.0) -> None:
        self.logits, self._k, self._error = logits, k, np.float32(error)
        self.fetched: list[list[int]] = []
        self.masked: list[list[int]] = []

    def execute_candidates(
        self,
        batch: Batch,
        inverse_temperatures: npt.NDArray[np.float32],
        bitmasks: Bitmasks,
    ) -> Candidates:
        """Choose from what is given."""
        self.masked.append(list(bitmasks))
        found = choose_candidates(self.logits, self._k, inverse_temperatures, bitmasks)
        return replace(found, log_masses=found.log_masses + self._error)

    def fetch_logits(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Whole rows."""
        self.fetched.append(list(rows))
        return self.logits[list(rows)].copy()


class CandidateScriptedRunner(ScriptedRunner):
    """A scripted runner that brings candidates.

    Args:
        max_candidates: How many of each row.

    Attributes:
        fetched: The rows of each `fetch_logits`.
        num_whole_rows: That `execute_model` returned.
    """

    def __init__(self, *, max_candidates: int = 8, **options: Any) -> None:
        super().__init__(**options)
        self.info = replace(self.info, max_candidates=max_candidates)
        self.fetched: list[list[int]] = []
        self.num_whole_rows = 0
        self._logits = np.zeros((0, 0), np.float32)

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Count."""
        logits = super().execute_model(batch)
        self.num_whole_rows += len(logits)
        return logits

    def execute_candidates(
        self,
        batch: Batch,
        inverse_temperatures: npt.NDArray[np.float32],
        bitmasks: Bitmasks,
    ) -> Candidates:
        """One step; see `CandidateRunner`."""
        self._logits = super().execute_model(batch)
        k = self.info.max_candidates
        return choose_candidates(self._logits, k, inverse_temperatures, bitmasks)

    def fetch_logits(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Whole rows of the last step."""
        self.fetched.append(list(rows))
        return self._logits[list(rows)].copy()

"""Asks the runner for what a batch needs, and looks at what it returns."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from provider_core.engine.faults import check_logits
from provider_core.engine.sampler import Sampled
from provider_core.engine.sequence import Sequence
from provider_core.interfaces import Batch, CandidateRunner, MixedRunner, ModelRunner

Logits = npt.NDArray[np.float32]


class RemoteLogits(Protocol):
    """Logits of a step that stayed where they are."""

    def sample(self) -> Sampled:
        """Choose one token for each row, once."""
        ...


class RemoteSteps(Protocol):
    """Runs steps whose logits stay where they are."""

    def run(self, batch: Batch, rows: list[Sequence]) -> RemoteLogits | None:
        """Run a batch, or leave it if its logits have to come."""
        ...

    def forget(self) -> None:
        """Let go of the rows."""
        ...


StepLogits = Logits | RemoteLogits
"""What a step leaves to draw from; `Logits` are float32 `[n * num_logits, vocab_size]`."""


class Execution:
    """Runs batches by whatever the runner offers.

    Args:
        runner: Warmed up.

    Attributes:
        mixes: Whether it takes a prefill and a decode in one call.
    """

    def __init__(self, runner: ModelRunner) -> None:
        info = runner.info
        self._runner, self._vocab_size = runner, info.vocab_size
        self.mixes = False
        if info.mixes_phases and isinstance(runner, MixedRunner):
            self.mixes, self._execute_mixed = True, runner.execute_mixed
        self._remote: RemoteSteps | None = None
        if info.max_candidates and isinstance(runner, CandidateRunner):
            from provider_core.engine.candidates import CandidateSteps  # noqa: PLC0415 - few have any

            self._remote = CandidateSteps(runner, info)

    def run(self, batch: Batch, rows: list[Sequence]) -> StepLogits:
        """Run one batch.

        Raises:
            StepFailed: What it returned has a wrong shape or type.
            Exception: Whatever the runner raises.
        """
        if self._remote is not None and (remote := self._remote.run(batch, rows)) is not None:
            return remote
        logits = self._runner.execute_model(batch)
        check_logits(logits, (len(rows) * batch.num_logits, self._vocab_size))
        return logits

    def run_mixed(self, prefill: Batch, decode: Batch) -> tuple[Logits, Logits]:
        """Run both in one call; the logits of each.

        Raises:
            StepFailed: What it returned has a wrong shape or type.
            Exception: Whatever the runner raises.
        """
        logits = self._execute_mixed(prefill, decode)
        check_logits(logits, (prefill.num_logits + len(decode.slots), self._vocab_size))
        return logits[: prefill.num_logits], logits[prefill.num_logits :]

    def forget(self) -> None:
        """Let go of the rows that ran last: some have ended."""
        if self._remote is not None:
            self._remote.forget()

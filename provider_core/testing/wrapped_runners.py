"""Runners around a runner, that fail or stand still when a test says so."""

import asyncio
import threading

import numpy as np
import numpy.typing as npt

from provider_core.errors import StepFailed
from provider_core.interfaces import Batch, ModelRunner, RunnerInfo
from provider_core.testing.generation import TIMEOUT_S, ContractViolation


class _WrappedRunner:
    """Passes everything on."""

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner

    @property
    def info(self) -> RunnerInfo:
        """The inner runner's."""
        return self._runner.info

    def warm_up(self) -> None:
        """Warm the inner runner up."""
        self._runner.warm_up()

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Run one step of the inner runner."""
        return self._runner.execute_model(batch)

    def move_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Move in the inner runner."""
        self._runner.move_slot(source, target, num_tokens)

    def close(self) -> None:
        """Close the inner runner."""
        self._runner.close()


class FailingRunner(_WrappedRunner):
    """Loses a step when `fails_next` is set, after the runner computed it."""

    def __init__(self, runner: ModelRunner) -> None:
        super().__init__(runner)
        self.fails_next = False

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Run one step; then lose it, or not."""
        logits = super().execute_model(batch)
        if self.fails_next:
            self.fails_next = False
            raise StepFailed("this step was told to fail")
        return logits


class BlockingRunner(_WrappedRunner):
    """Stands still at the start of a step, between `hold` and `let_go`."""

    def __init__(self, runner: ModelRunner) -> None:
        super().__init__(runner)
        self._inside = threading.Event()
        self._may_run = threading.Event()
        self._may_run.set()

    def hold(self) -> None:
        """Let the next step wait."""
        self._inside.clear()
        self._may_run.clear()

    def let_go(self) -> None:
        """Let it run on."""
        self._may_run.set()

    async def is_inside(self) -> None:
        """Wait until a step stands still.

        Raises:
            ContractViolation: None came.
        """
        if not await asyncio.to_thread(self._inside.wait, TIMEOUT_S):
            raise ContractViolation(f"no step began in {TIMEOUT_S} s")

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Wait for `let_go`, then run one step."""
        if not self._may_run.is_set():
            self._inside.set()
            self._may_run.wait(TIMEOUT_S)
        return super().execute_model(batch)

"""A runner that brings candidates fulfils the contract."""

import numpy as np
import numpy.typing as npt

from provider_core.interfaces import Batch, Candidates, ModelRunner
from provider_core.testing import RunnerContract
from tests.contract.candidate_mistakes import OPTIONS
from tests.unit.engine.candidate_runner import (
    Bitmasks,
    CandidateScriptedRunner,
    choose_candidates,
)


class TestRunnerWithCandidates(RunnerContract):
    """And the engine over it, which fetches rows at times."""

    def make_runner(self) -> ModelRunner:
        """Few slots, so that sequences wait."""
        return CandidateScriptedRunner(**OPTIONS)


class _HighLogits(CandidateScriptedRunner):
    """Where a step of float32 is more than what sums may be wrong by."""

    def execute_model(self, batch: Batch) -> npt.NDArray[np.float32]:
        return super().execute_model(batch) + np.float32(3000.7)

    def execute_candidates(
        self, batch: Batch, inverse_temperatures: npt.NDArray[np.float32], bitmasks: Bitmasks
    ) -> Candidates:
        self._logits = self.execute_model(batch)
        k = self.info.max_candidates
        return choose_candidates(self._logits, k, inverse_temperatures, bitmasks)


class TestRunnerWithHighLogits(RunnerContract):
    """Its sums are as close as float32 can say them."""

    def make_runner(self) -> ModelRunner:
        """As above."""
        return _HighLogits(**OPTIONS)

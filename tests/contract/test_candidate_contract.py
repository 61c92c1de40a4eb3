"""A runner that brings candidates fulfils the contract."""

from provider_core.interfaces import ModelRunner
from provider_core.testing import RunnerContract
from tests.contract.candidate_mistakes import OPTIONS
from tests.unit.engine.candidate_runner import CandidateScriptedRunner


class TestRunnerWithCandidates(RunnerContract):
    """And the engine over it, which fetches rows at times."""

    def make_runner(self) -> ModelRunner:
        """Few slots, so that sequences wait."""
        return CandidateScriptedRunner(**OPTIONS)

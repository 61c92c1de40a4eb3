"""The backend that the documentation explains fulfils the contract it explains."""

from provider_core import ModelRunner, ModelSpec
from provider_core.testing import RunnerContract
from tests.example_backend.provider_example import CopyRunner


class TestCopyRunner(RunnerContract):
    """Every test of the contract."""

    def make_runner(self) -> ModelRunner:
        """Three slots of 128 positions."""
        return CopyRunner(ModelSpec(id="copy", source="copy", max_num_seqs=3, max_model_len=128))

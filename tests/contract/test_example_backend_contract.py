"""The backend that the documentation explains fulfils the contract it explains."""

import re
import sys
from pathlib import Path

import pytest

from provider_core import ModelRunner, ModelSpec
from provider_core.testing import RunnerContract
from tests.example_backend import provider_example
from tests.example_backend.provider_example import CopyRunner

PAGE = Path(__file__).parents[2] / "docs/writing-a-backend.md"
SPEC = ModelSpec(id="copy", source="copy", max_num_seqs=3, max_model_len=128, prefix_cache_mib=1)


class TestCopyRunner(RunnerContract):
    """Every test of the contract."""

    def make_runner(self) -> ModelRunner:
        """Three slots of 128 positions."""
        return CopyRunner(SPEC)


class TestCachingCopyRunner(RunnerContract):
    """The same of the page's further example, cached prompts among them."""

    @pytest.fixture(autouse=True)
    def _example(self, monkeypatch: pytest.MonkeyPatch) -> None:
        blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        (source,) = (block for block in blocks if "class CachingCopyRunner" in block)
        monkeypatch.setitem(sys.modules, "provider_example", provider_example)
        self.names: dict[str, type[CopyRunner]] = {}
        exec(source, self.names)  # noqa: S102 - our own page

    def make_runner(self) -> ModelRunner:
        """As the page writes it."""
        runner = self.names["CachingCopyRunner"](SPEC)
        assert runner.info.num_cache_blocks == 8192
        return runner

"""onnxruntime-genai's engine keeps the contract."""

from pathlib import Path
from typing import ClassVar

import pytest

from provider_core import Engine, ModelSpec
from provider_core.testing import EngineContract
from provider_genai import load_model
from tests.genai_folders import write_genai_folder


class TestGenaiEngine(EngineContract):
    """Four sequences at a time, eleven in all."""

    folder: ClassVar[Path]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _folder(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.folder = write_genai_folder(tmp_path_factory.mktemp("genai") / "tiny", vocab_size=96)

    def make_engine(self) -> Engine:
        """On its own thread, with slots of 128 positions."""
        spec = ModelSpec(id="tiny", source="tiny", backend="genai", max_model_len=128)
        engine = load_model(spec, self.folder)
        assert engine is not None
        return engine

"""The ONNX Runtime backend keeps the contract of every runner, in each convention."""

from pathlib import Path

import pytest

from provider_core import ModelRunner, ModelSpec
from provider_core.testing import RunnerContract
from provider_export.export import export_decoder
from provider_onnxruntime import load_model
from tests.decoder_variants import GrowingTarget, write_variant
from tests.tiny_checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One random checkpoint as a decoder of each convention."""
    root = tmp_path_factory.mktemp("decoders")
    checkpoint = write_checkpoint(root / "checkpoint")
    export_decoder(checkpoint, root / "genai", target="cpu")
    export_decoder(checkpoint, root / "scatter", target="tensorrt")
    write_variant(checkpoint, root / "optimum", GrowingTarget)
    return {name: root / name for name in ("genai", "scatter", "optimum")}


class _OnnxRuntimeContract(RunnerContract):
    convention: str
    folders: dict[str, Path]

    @pytest.fixture(autouse=True)
    def take_folders(self, folders: dict[str, Path]) -> None:
        """Contract tests take no fixtures of their own."""
        self.folders = folders

    def make_runner(self) -> ModelRunner:
        """Four slots of 256 positions."""
        spec = ModelSpec(id="tiny", source="", max_num_seqs=4, max_model_len=256)
        runner = load_model(spec, self.folders[self.convention])
        assert isinstance(runner, ModelRunner)
        return runner


class TestGenai(_OnnxRuntimeContract):
    """GroupQueryAttention over slots in place."""

    convention = "genai"


class TestScatter(_OnnxRuntimeContract):
    """TensorScatter over slots in place."""

    convention = "scatter"


class TestOptimum(_OnnxRuntimeContract):
    """Caches that grow."""

    convention = "optimum"

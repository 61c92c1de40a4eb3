"""The runner contract on ONNX Runtime's GPU providers: pools in a GPU's memory, moved in place."""

from pathlib import Path
from typing import ClassVar

import onnxruntime as ort
import pytest

from provider_core import ModelRunner, ModelSpec
from provider_core.testing import RunnerContract
from provider_export.export import export_decoder
from provider_onnxruntime import load_model
from provider_tensorrt.library import find_capability
from tests.tiny_checkpoints import write_checkpoint

pytestmark = pytest.mark.gpu


class GpuContract(RunnerContract):
    """The `scatter` graph: GroupQueryAttention has no float32 kernel on CUDA."""

    folder: Path
    provider: ClassVar[str]

    @pytest.fixture(autouse=True)
    def take_folder(self, tmp_path: Path) -> None:
        """A tiny decoder of standard operators."""
        self.folder = write_checkpoint(tmp_path)
        export_decoder(tmp_path, tmp_path, target="tensorrt")

    def make_runner(self) -> ModelRunner:
        """Four slots on the first GPU."""
        options = {"provider": self.provider}
        spec = ModelSpec(id="tiny", source="", max_num_seqs=4, max_model_len=256, options=options)
        runner = load_model(spec, self.folder)
        assert isinstance(runner, ModelRunner)
        assert runner.info.device == "cuda:0"
        return runner


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(),
    reason="needs an NVIDIA GPU and onnxruntime-gpu",
)
class TestCuda(GpuContract):
    """ONNX Runtime's own provider."""

    provider = "cuda"


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers() or find_capability() is None,
    reason="needs an NVIDIA GPU, and onnxruntime without its own CUDA",
)
class TestTensorRtRtx(GpuContract):
    """The provider that is a library of its own."""

    provider = "tensorrt_rtx"

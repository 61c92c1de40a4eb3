"""The real library, and decoders for it."""

from pathlib import Path

import pytest

from provider_export.export import export_decoder
from provider_tensorrt import cuda_device
from provider_tensorrt.library import TensorRt, find_library
from tests.integration.tensorrt.scripted_gpu import ScriptedCuda
from tests.tiny_checkpoints import write_checkpoint


@pytest.fixture(scope="session")
def library() -> TensorRt:
    """TensorRT for RTX, whose parser and builder need no GPU."""
    return find_library("tensorrt_rtx")


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """An exported decoder of two layers, random."""
    source = write_checkpoint(tmp_path / "source", max_position_embeddings=128)
    export_decoder(source, tmp_path / "model", target="tensorrt")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder."""
    folder = write_checkpoint(tmp_path_factory.mktemp("tiny"))
    export_decoder(folder, folder, target="tensorrt")
    return folder


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> ScriptedCuda:
    """A GPU."""
    cuda = ScriptedCuda()
    monkeypatch.setattr(cuda_device, "cuda", cuda)
    return cuda

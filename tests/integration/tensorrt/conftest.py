"""The real library, and decoders for it."""

from pathlib import Path

import pytest

from provider_export.export import export_decoder
from provider_tensorrt.library import TensorRt, find_library
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

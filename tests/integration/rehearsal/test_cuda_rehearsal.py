"""The tests of `tests/gpu` for ONNX Runtime, run once over a scripted GPU: are they right?"""

from pathlib import Path
from typing import ClassVar

import pytest

from tests.gpu import test_cuda_runner as on_gpu
from tests.scripted_cuda import ScriptedGpu
from tests.tiny_checkpoints import FAMILIES


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> ScriptedGpu:
    """A GPU, and an ONNX Runtime for it."""
    return ScriptedGpu(monkeypatch)


class TestCudaGraphs(on_gpu.GpuContract):
    """The contract, as it is asked of a GPU."""

    options: ClassVar[dict[str, object]] = {"provider": "cuda", "cuda_graphs": "on"}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_compared(tmp_path: Path, family: str) -> None:
    """With those of a plain forward pass."""
    on_gpu.test_logits_equal_a_plain_forward_pass(tmp_path, family)


@pytest.mark.parametrize("convention", ["genai", "scatter"])
def test_replays_are_compared(tmp_path: Path, convention: str, gpu: ScriptedGpu) -> None:
    """With steps that were queued: the second captures, once on the thread of the warm-up."""
    on_gpu.test_replayed_decodes_are_those_that_were_queued(tmp_path, convention)
    assert [len(session.graphs) for session in gpu.sessions] == [0, 4]


def test_a_capture_that_fails_is_found(tmp_path: Path, gpu: ScriptedGpu) -> None:
    """By a line in the log."""
    gpu.max_graphs = 1
    with pytest.raises(AssertionError, match=r"graphs\.no_more"):
        on_gpu.test_replayed_decodes_are_those_that_were_queued(tmp_path, "scatter")

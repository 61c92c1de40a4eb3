"""The tests of `tests/gpu` for ONNX Runtime, run once over a scripted GPU: are they right?"""

from pathlib import Path

import pytest

from provider_export.export import export_decoder
from tests.gpu import test_cuda_runner as on_gpu
from tests.scripted_cuda import ScriptedGpu
from tests.tiny_checkpoints import FAMILIES, write_checkpoint


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> ScriptedGpu:
    """A GPU, and an ONNX Runtime for it."""
    return ScriptedGpu(monkeypatch)


def test_the_contract_gets_its_runner(tmp_path: Path) -> None:
    """Captured; the contract itself runs over the same script elsewhere."""
    contract = on_gpu.TestCudaGraphs()
    contract.folder = write_checkpoint(tmp_path)
    export_decoder(tmp_path, tmp_path, target="tensorrt")
    contract.test_batched_equals_alone()


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

"""ONNX Runtime's GPU providers: the runner contract, the families' logits, and CUDA graphs."""

from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from structlog.testing import capture_logs

from provider_core import ModelRunner, ModelSpec
from provider_core.testing import RunnerContract, decode_batch, prefill_batch
from provider_export.export import export_decoder
from provider_onnxruntime import load_model
from provider_onnxruntime.capturing_decoder import CapturingDecoder
from provider_tensorrt.library import find_capability
from tests.decoder_variants import HalfGenaiTarget, write_variant
from tests.reference_decoder import ReferenceDecoder
from tests.tiny_checkpoints import FAMILIES, write_checkpoint

TOLERANCE = 0.02
"""Of logits, which are of the order of 1: in float16, or of attention's own kernels in TF32."""

PROMPTS = ([3, 14, 15, 92, 65], [35, 89, 79], [32, 38, 46, 26, 43, 38])

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
capability = find_capability()
needs_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers() or capability is None,
    reason="needs an NVIDIA GPU and onnxruntime-gpu",
)
needs_rtx = pytest.mark.skipif(
    capability is None or not (capability in {"8.6", "8.9"} or float(capability) >= 12),
    reason="needs an NVIDIA GPU that TensorRT for RTX runs on",
)


def load(folder: Path, **options: object) -> ModelRunner:
    """Four slots on the first GPU."""
    spec = ModelSpec(id="tiny", source="", max_num_seqs=4, max_model_len=256, options=options)
    runner = load_model(spec, folder)
    assert isinstance(runner, ModelRunner)
    assert runner.info.device == "cuda:0"
    return runner


class GpuContract(RunnerContract):
    """The `scatter` graph: GroupQueryAttention has no float32 kernel on CUDA."""

    folder: Path
    options: ClassVar[dict[str, object]]

    @pytest.fixture(autouse=True)
    def take_folder(self, tmp_path: Path) -> None:
        """A tiny decoder of standard operators."""
        self.folder = write_checkpoint(tmp_path)
        export_decoder(tmp_path, tmp_path, target="tensorrt")

    def make_runner(self) -> ModelRunner:
        """Four slots."""
        return load(self.folder, **self.options)


@needs_cuda
class TestCuda(GpuContract):
    """ONNX Runtime's own provider, each step queued."""

    options: ClassVar[dict[str, object]] = {"provider": "cuda", "cuda_graphs": "off"}


@needs_cuda
class TestCudaGraphs(GpuContract):
    """The same, decodes replayed."""

    options: ClassVar[dict[str, object]] = {"provider": "cuda", "cuda_graphs": "on"}


@needs_rtx
class TestTensorRtRtx(GpuContract):
    """The provider that is a library of its own."""

    options: ClassVar[dict[str, object]] = {"provider": "tensorrt_rtx"}


@needs_cuda
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_a_plain_forward_pass(tmp_path: Path, family: str) -> None:
    """At every position of a text beyond the sliding windows."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint", family)
    export_decoder(checkpoint, tmp_path / "out", target="tensorrt")
    prompt = np.random.default_rng(11).integers(0, 96, 60).tolist()
    runner = load(tmp_path / "out", provider="cuda")
    logits = runner.execute_model(prefill_batch(1, prompt, num_logits=len(prompt)))
    np.testing.assert_allclose(logits, ReferenceDecoder(checkpoint).logits(prompt), atol=TOLERANCE)
    runner.close()


def decode_all(runner: ModelRunner) -> list[npt.NDArray[np.float32]]:
    """Logits of prompts, and of some decodes of 1, 2 and 3 rows, on a thread as the engine's."""
    seen: list[npt.NDArray[np.float32]] = []

    def run() -> None:
        for slot, prompt in enumerate(PROMPTS):
            seen.append(runner.execute_model(prefill_batch(slot, prompt)).copy())
        for step in range(9):
            rows = 1 + step % 3
            lengths = [len(prompt) + step // 3 for prompt in PROMPTS[:rows]]
            batch = decode_batch([7 + step // 3] * rows, lengths)
            seen.append(runner.execute_model(batch).copy())

    runner.warm_up()
    thread = Thread(target=run)
    thread.start()
    thread.join()
    runner.close()
    return seen


@needs_cuda
@pytest.mark.parametrize("convention", ["genai", "scatter"])
def test_replayed_decodes_are_those_that_were_queued(tmp_path: Path, convention: str) -> None:
    """In float16; each shape is captured, and padding spoils nothing."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    if convention == "genai":
        write_variant(checkpoint, tmp_path / "out", HalfGenaiTarget)
    else:
        export_decoder(
            checkpoint, tmp_path / "out", target="tensorrt", precision="fp16", activations="fp16"
        )
    queued = decode_all(load(tmp_path / "out", provider="cuda", cuda_graphs="off"))
    runner = load(tmp_path / "out", provider="cuda", cuda_graphs="on")
    [decoder] = runner._decoders  # type: ignore[attr-defined]  # the runner's own
    assert isinstance(decoder, CapturingDecoder)
    with capture_logs() as logs:
        replayed = decode_all(runner)

    assert [line["event"] for line in logs if line["event"].startswith("graphs.")] == []
    assert len(queued) == len(replayed) == len(PROMPTS) + 9
    for one, other in zip(queued, replayed, strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE)

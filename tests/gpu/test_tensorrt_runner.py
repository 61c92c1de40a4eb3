"""The runner contract and the families' logits by TensorRT, on an engine that is built here."""

from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from provider_core import ConfigurationError, ModelRunner, ModelSpec
from provider_core.testing import RunnerContract, prefill_batch
from provider_export.export import export_decoder
from provider_tensorrt import load_model
from provider_tensorrt.builder import check_capability
from provider_tensorrt.building import build_engines
from provider_tensorrt.library import find_capability, find_library
from tests.reference_decoder import ReferenceDecoder
from tests.tiny_checkpoints import FAMILIES, write_checkpoint

MAX_NUM_SEQS, MAX_MODEL_LEN = 4, 256
TOLERANCE = 0.05
"""Of logits, which are of the order of 1: TensorRT may multiply float32 in TF32."""


def _reason_to_skip() -> str | None:
    capability = find_capability()
    if capability is None:
        return "needs an NVIDIA GPU"
    try:
        check_capability(find_library(), capability)
    except ConfigurationError as error:
        return error.message
    return None


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),  # the first engine waits for the library and the GPU
    pytest.mark.skipif(_reason_to_skip() is not None, reason=str(_reason_to_skip())),
]


def load_on_gpu(folder: Path) -> ModelRunner:
    """Build an engine for the GPU that is here, and load it."""
    build_engines(
        folder,
        find_library(),
        max_num_seqs=MAX_NUM_SEQS,
        max_prefill_tokens=64,
        max_model_len=MAX_MODEL_LEN,
    )
    spec = ModelSpec(
        id="tiny",
        source=str(folder),
        backend="tensorrt",
        max_num_seqs=MAX_NUM_SEQS,
        max_model_len=MAX_MODEL_LEN,
    )
    runner = load_model(spec, folder, print)
    assert isinstance(runner, ModelRunner)
    assert runner.info.device == "cuda:0"
    return runner


class TestTensorRt(RunnerContract):
    """On the GPU."""

    folder: Path

    @pytest.fixture(autouse=True)
    def take_folder(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """A tiny decoder of more ids than candidates; its engine is built by the first test."""
        if not hasattr(type(self), "folder"):
            folder = tmp_path_factory.mktemp("tiny")
            type(self).folder = write_checkpoint(folder, vocab_size=1000)  # more than candidates
            export_decoder(self.folder, self.folder, target="tensorrt")

    def make_runner(self) -> ModelRunner:
        """Four slots."""
        return load_on_gpu(self.folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_a_plain_forward_pass(tmp_path: Path, family: str) -> None:
    """At every position of a text beyond the sliding windows."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint", family)
    export_decoder(checkpoint, tmp_path / "out", target="tensorrt")
    prompt = np.random.default_rng(11).integers(0, 96, 60).tolist()
    runner = load_on_gpu(tmp_path / "out")
    logits = runner.execute_model(prefill_batch(1, prompt, num_logits=len(prompt)))
    np.testing.assert_allclose(logits, ReferenceDecoder(checkpoint).logits(prompt), atol=TOLERANCE)
    runner.close()


def test_a_second_start_finds_what_the_first_compiled(tmp_path: Path) -> None:
    """TensorRT for RTX compiles where it runs; the data-centre library's engines are final."""
    folder = write_checkpoint(tmp_path)
    export_decoder(folder, folder, target="tensorrt")
    runner = load_on_gpu(folder)
    runner.warm_up()
    runner.close()
    kept = {path.name: path.read_bytes() for path in folder.glob("engines/kernels/*")}
    assert bool(kept) == (find_library().name == "tensorrt_rtx")

    with capture_logs() as logs:
        runner = load_on_gpu(folder)
        runner.warm_up()
        runner.close()

    assert [line["event"] for line in logs if line["event"].startswith("kernels.")] == []
    assert {path.name for path in folder.glob("engines/kernels/*")} == kept.keys()

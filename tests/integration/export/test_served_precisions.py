"""Quantised exports behind a real server: the weights that were stored are those that answer."""

import json
from pathlib import Path

import numpy as np
import pytest

from provider_core import ModelRunner
from provider_core.types import ModelSpec
from provider_export.export import Precision, export_decoder
from provider_onnxruntime import load_model
from tests.generation import prefill_logits
from tests.reference_decoder import ReferenceDecoder
from tests.serving import VOCAB_SIZE, serving
from tests.tiny_checkpoints import write_checkpoint

PROMPT = [3, 14, 15, 92, 65, 35, 89, 79]


def make_runner(model: ModelSpec, folder: Path) -> ModelRunner:
    """The ONNX Runtime backend on a folder."""
    runner = load_model(model, folder)
    assert isinstance(runner, ModelRunner)
    return runner


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])  # a head of its own, and a tied one
@pytest.mark.parametrize(
    ("precision", "listed", "tolerance"),
    [("int8", "int8", 0.2), ("int4", "int4", 0.7), ("hybrid", "int4", 0.2)],
)
async def test_a_quantised_export_is_served(
    tmp_path: Path, model_type: str, precision: Precision, listed: str, tolerance: float
) -> None:
    """Listed at its precision, and answering with logits near the checkpoint's.

    Unrelated logits differ by 1.4 times their size; int8 rounds activations too.
    """
    source = write_checkpoint(
        tmp_path / "source", model_type, vocab_size=VOCAB_SIZE, hidden_size=64
    )
    folder = tmp_path / "out"
    export_decoder(source, folder, precision=precision)
    specs: list[ModelSpec] = []

    def load(model: ModelSpec) -> ModelRunner:
        specs.append(model)
        return make_runner(model, folder)

    async with serving(load, max_model_len=512) as served:
        response = await served.chat("Tell me", max_tokens=20, temperature=0, ignore_eos=True)
        assert response.status == 200, await response.text()
        assert (await response.json())["usage"]["completion_tokens"] == 20
        async with served.session.get(served.url + "/v1/models") as listing:
            assert json.loads(await listing.text())["data"][0]["quantization"] == listed
    runner = make_runner(specs[0], folder)
    found = prefill_logits(runner, 0, PROMPT)[-1]
    runner.close()
    expected = ReferenceDecoder(source).logits(PROMPT)[-1]
    error = np.sqrt(np.square(found - expected).mean() / np.square(expected).mean())
    assert error < tolerance

"""Decoders as other exporters write them: every convention's variations serve the same tokens."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from provider_core import ModelRunner, ModelSpec
from provider_export.export import export_decoder
from provider_onnxruntime import load_model
from tests.decoder_variants import GrowingTarget, MaskedGenaiTarget, write_variant
from tests.generation import generate_greedily, prefill_logits
from tests.reference_decoder import ReferenceDecoder
from tests.tiny_checkpoints import write_checkpoint

MAX_MODEL_LEN, VOCAB_SIZE = 160, 96


def write_fixed_batch(checkpoint: Path, folder: Path) -> Path:
    """A graph that takes one row only."""
    model_file = export_decoder(checkpoint, folder)
    model = onnx.load(model_file)
    for info in (*model.graph.input, *model.graph.output):
        shape = info.type.tensor_type.shape
        if shape.dim and shape.dim[0].dim_param == "batch_size":
            shape.dim[0].dim_value = 1
    onnx.save_model(model, model_file)
    return folder


def write_fixed_length(checkpoint: Path, folder: Path) -> Path:
    """A graph whose caches hold 128 positions, whatever the server would like."""
    model_file = export_decoder(checkpoint, folder)
    model = onnx.load(model_file)
    for info in (*model.graph.input, *model.graph.output):
        for dimension in info.type.tensor_type.shape.dim:
            if dimension.dim_param == "max_sequence_length":
                dimension.dim_value = 128
    onnx.save_model(model, model_file)
    return folder


VARIANTS: dict[str, Callable[[Path, Path], Path]] = {
    "genai-mask": partial(write_variant, make_target=MaskedGenaiTarget),
    "genai-mask-all-logits": partial(
        write_variant, make_target=MaskedGenaiTarget, keeps_all_logits=True
    ),
    "genai-fixed-batch": write_fixed_batch,
    "genai-fixed-length": write_fixed_length,
    "optimum": partial(write_variant, make_target=GrowingTarget),
    "optimum-all-logits": partial(write_variant, make_target=GrowingTarget, keeps_all_logits=True),
    "optimum-branch": partial(write_variant, make_target=partial(GrowingTarget, has_branch=True)),
    "optimum-no-positions": partial(
        write_variant, make_target=partial(GrowingTarget, has_positions=False)
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One random checkpoint for all."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module", params=list(VARIANTS))
def runner(
    request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelRunner]:
    """Each variant, loaded."""
    folder = VARIANTS[request.param](checkpoint, tmp_path_factory.mktemp("decoder"))
    runner = load(folder)
    runner.warm_up()
    yield runner
    runner.close()


def load(folder: Path) -> ModelRunner:
    """A runner of eight slots."""
    spec = ModelSpec(id="tiny", source="", max_num_seqs=8, max_model_len=MAX_MODEL_LEN)
    runner = load_model(spec, folder)
    assert isinstance(runner, ModelRunner)
    return runner


def make_prompts() -> list[list[int]]:
    """Eight prompts of different lengths."""
    rng = np.random.default_rng(5)
    lengths = (3, 17, 9, 1, 40, 5, 30, 12)
    return [rng.integers(0, VOCAB_SIZE, size=length).tolist() for length in lengths]


def test_greedy_tokens_equal_a_plain_forward_pass(runner: ModelRunner, checkpoint: Path) -> None:
    """Sixty-four tokens of eight rows together."""
    reference, prompts = ReferenceDecoder(checkpoint), make_prompts()
    expected = [reference.greedy(prompt, 64) for prompt in prompts]
    assert generate_greedily(runner, prompts, 64) == expected


def test_a_row_does_not_depend_on_its_neighbours(runner: ModelRunner) -> None:
    """Eight rows together get what each gets alone."""
    prompts = make_prompts()
    alone = [generate_greedily(runner, [prompt], 32)[0] for prompt in prompts]
    assert generate_greedily(runner, prompts, 32) == alone


def test_chunked_prefill_equals_whole_prefill(runner: ModelRunner) -> None:
    """Where a prompt is cut changes nothing."""
    prompts = make_prompts()
    whole = generate_greedily(runner, prompts, 16)
    assert generate_greedily(runner, prompts, 16, 3) == whole


def test_a_fixed_cache_decides_the_length(checkpoint: Path, tmp_path: Path) -> None:
    """The runner reports the positions that the graph's buffers hold."""
    runner = load(write_fixed_length(checkpoint, tmp_path))
    assert runner.info.max_model_len == 128


def test_half_precision_caches_and_logits_are_served_as_float32(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Sixteen-bit caches stay within their rounding of the exact logits."""
    target = partial(GrowingTarget, cache_type=TensorProto.FLOAT16)
    runner = load(write_variant(checkpoint, tmp_path, target, has_half_logits=True))
    prompt = make_prompts()[4]
    logits = prefill_logits(runner, 2, prompt, chunk=7)
    assert logits.dtype == np.float32
    exact = ReferenceDecoder(checkpoint).logits(prompt)[-1:]
    np.testing.assert_allclose(logits, exact, atol=0.1)

"""Rows and chunks are independent to the last bit, not only in their likeliest token.

A shape like the built-in model's, because tiny matrices take other kernels.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from provider_core import ModelRunner, ModelSpec
from provider_core.testing import decode_batch
from provider_export.export import export_decoder
from provider_onnxruntime import load_model
from tests.generation import prefill_logits
from tests.tiny_checkpoints import write_checkpoint

MAX_NUM_SEQS, VOCAB_SIZE = 32, 512


@pytest.fixture(scope="module", params=[None, "int4", "int8", "hybrid"])
def runner(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelRunner]:
    """Two layers of 256, heads of 64, in every precision."""
    folder = write_checkpoint(
        tmp_path_factory.mktemp("wide"),
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=768,
        head_dim=64,
    )
    export_decoder(folder, folder, precision="fp16")
    spec = ModelSpec(
        id="wide",
        source="",
        max_num_seqs=MAX_NUM_SEQS,
        max_model_len=512,
        precision=request.param,
        deterministic=True,
    )
    runner = load_model(spec, folder)
    assert isinstance(runner, ModelRunner)
    yield runner
    runner.close()


def decode_logits(runner: ModelRunner, lengths: list[int]) -> npt.NDArray[np.float32]:
    """One step of the token 5 in the first slots."""
    return runner.execute_model(decode_batch([5] * len(lengths), lengths)).copy()


def test_decode_rows_are_bitwise_independent_of_the_batch(runner: ModelRunner) -> None:
    """Every batch size from 1 to 32 gives a row the bits that it gets alone in slot 0."""
    rng = np.random.default_rng(3)
    lengths = [int(length) for length in rng.integers(1, 200, size=MAX_NUM_SEQS)]
    prompts = [rng.integers(0, VOCAB_SIZE, size=length).tolist() for length in lengths]
    alone = []
    for prompt in prompts:
        prefill_logits(runner, 0, prompt)
        alone.append(decode_logits(runner, [len(prompt)])[0])
    for slot, prompt in enumerate(prompts):
        prefill_logits(runner, slot, prompt)
    for num_rows in range(1, MAX_NUM_SEQS + 1):
        logits = decode_logits(runner, lengths[:num_rows])
        np.testing.assert_array_equal(logits, alone[:num_rows])


@pytest.mark.parametrize("chunk", [3, 4, 16, 64, 255, 299])
def test_chunked_prefill_is_bitwise_whole_prefill(runner: ModelRunner, chunk: int) -> None:
    """Wherever the cuts fall, as long as no chunk is of one token."""
    prompt = np.random.default_rng(4).integers(0, VOCAB_SIZE, size=300).tolist()
    whole = prefill_logits(runner, 0, prompt, chunk=300)
    next_of_whole = decode_logits(runner, [300])
    np.testing.assert_array_equal(prefill_logits(runner, 0, prompt, chunk), whole)
    np.testing.assert_array_equal(decode_logits(runner, [300]), next_of_whole)

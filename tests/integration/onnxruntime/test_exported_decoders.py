"""What our own exporter writes, run by the ONNX Runtime backend, against a plain forward pass."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from provider_core import ModelRunner, ModelSpec
from provider_core.testing import decode_batch, prefill_batch
from provider_export.export import TargetName, export_decoder
from provider_onnxruntime import load_model
from tests.generation import decode, generate_greedily, prefill, prefill_logits
from tests.reference_decoder import ReferenceDecoder
from tests.tiny_checkpoints import (
    FAMILIES,
    VARIANTS,
    max_model_len_of,
    write_checkpoint,
    write_checkpoint_of,
)

MAX_NUM_SEQS, MAX_MODEL_LEN, VOCAB_SIZE = 32, 160, 96
TARGETS = get_args(TargetName)
LENGTHS = (3, 17, 9, 1, 40, 5, 30, 12)


def make_prompts(lengths: tuple[int, ...]) -> list[list[int]]:
    """Random prompts of these lengths."""
    rng = np.random.default_rng(11)
    return [rng.integers(0, VOCAB_SIZE, size=length).tolist() for length in lengths]


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of each family."""
    return write_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module", params=TARGETS)
def runner(
    request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelRunner]:
    """Its export for each target, loaded."""
    folder = tmp_path_factory.mktemp("decoder")
    export_decoder(checkpoint, folder, target=request.param)
    spec = ModelSpec(
        id="tiny", source=str(folder), max_num_seqs=MAX_NUM_SEQS, max_model_len=MAX_MODEL_LEN
    )
    runner = load_model(spec, folder)
    assert isinstance(runner, ModelRunner)
    runner.warm_up()
    yield runner
    runner.close()


def test_greedy_tokens_equal_a_plain_forward_pass(runner: ModelRunner, checkpoint: Path) -> None:
    """Sixty-four tokens of eight rows, all of them beyond the sliding windows in the end."""
    reference, prompts = ReferenceDecoder(checkpoint), make_prompts(LENGTHS)
    expected = [reference.greedy(prompt, 64) for prompt in prompts]
    assert generate_greedily(runner, prompts, 64) == expected


def test_a_row_does_not_depend_on_its_neighbours(runner: ModelRunner) -> None:
    """Thirty-two rows together get what each gets alone in slot 0."""
    prompts = make_prompts(LENGTHS * 4)
    alone = [generate_greedily(runner, [prompt], 16)[0] for prompt in prompts]
    assert generate_greedily(runner, prompts, 16) == alone


@pytest.mark.parametrize("chunk", [3, 7, 16])
def test_chunked_prefill_equals_whole_prefill(runner: ModelRunner, chunk: int) -> None:
    """Where a prompt is cut changes nothing."""
    prompts = make_prompts((40, 23))
    whole = generate_greedily(runner, prompts, 16)
    assert generate_greedily(runner, prompts, 16, chunk) == whole


def test_a_moved_slot_goes_on_where_it_was(runner: ModelRunner) -> None:
    """A sequence moved from slot 5 into slot 0 continues with the same tokens."""
    [prompt] = make_prompts((21,))
    [expected] = generate_greedily(runner, [prompt], 12)
    answer = [prefill(runner, 5, prompt)]
    runner.move_slot(5, 0, len(prompt))
    prefill(runner, 5, [1, 2, 3])  # the source is free for another
    for step in range(11):
        answer += decode(runner, answer[-1:], [len(prompt) + step])
    assert answer == expected


@pytest.mark.parametrize("variant", sorted(VARIANTS.keys() - FAMILIES))
@pytest.mark.parametrize("target", TARGETS)
def test_logits_equal_a_plain_forward_pass(
    tmp_path: Path, variant: str, target: TargetName
) -> None:
    """Biases, windows and scalings: every position of a text longer than the windows."""
    checkpoint, max_model_len = (
        write_checkpoint_of(variant, tmp_path / "checkpoint"),
        max_model_len_of(variant),
    )
    export_decoder(checkpoint, tmp_path / "out", target=target, max_model_len=max_model_len)
    runner = load_model(
        ModelSpec(id="tiny", source="", max_num_seqs=2, max_model_len=64), tmp_path / "out"
    )
    assert isinstance(runner, ModelRunner)
    [prompt] = make_prompts((60,))
    reference = ReferenceDecoder(checkpoint, max_len=max_model_len)
    logits = runner.execute_model(
        prefill_batch(1, prompt, num_computed_tokens=0, num_logits=len(prompt))
    )
    np.testing.assert_allclose(logits, reference.logits(prompt), atol=1e-3)
    runner.close()


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
@pytest.mark.parametrize("target", TARGETS)
def test_windows_keep_every_bit_where_a_prompt_is_cut(
    tmp_path: Path, family: str, target: TargetName
) -> None:
    """Chunks shorter and longer than the window, and rows within and beyond it, side by side."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "sliding_window": 48}
    checkpoint = write_checkpoint(tmp_path / "checkpoint", family, **sizes)
    export_decoder(checkpoint, tmp_path / "out", target=target)
    lengths = (5, 47, 48, 49, 150, 299)
    prompts = make_prompts(lengths)
    runner = load_model(
        ModelSpec(id="tiny", source="", max_num_seqs=len(lengths), max_model_len=320),
        tmp_path / "out",
    )
    assert isinstance(runner, ModelRunner)
    whole, alone = [], []
    for prompt in prompts:
        whole.append(prefill_logits(runner, 0, prompt, chunk=512))
        alone.append(runner.execute_model(decode_batch([7], [len(prompt)])).copy())
    for slot, prompt in enumerate(prompts):
        for chunk in (16, 64, 150):
            np.testing.assert_array_equal(prefill_logits(runner, slot, prompt, chunk), whole[slot])
    together = runner.execute_model(decode_batch([7] * len(lengths), lengths))
    np.testing.assert_array_equal(together, np.concatenate(alone))
    runner.close()

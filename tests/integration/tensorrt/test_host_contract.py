"""The contract of runners, and the logits of every family, on the host device."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pytest

from provider_core import ModelRunner, ModelSpec
from provider_core.testing import RunnerContract, prefill_batch
from provider_export.export import export_decoder
from provider_tensorrt import load_model
from provider_tensorrt.artefact import EngineLimits
from provider_tensorrt.decoder_graph import read_decoder
from provider_tensorrt.host_device import HostDevice
from provider_tensorrt.loading import HOST_VERIFY_MARGIN
from provider_tensorrt.runner import TensorRtRunner
from tests.generation import decode, generate_greedily, prefill, prefill_logits
from tests.reference_decoder import ReferenceDecoder
from tests.tiny_checkpoints import FAMILIES, write_checkpoint

MAX_NUM_SEQS, MAX_MODEL_LEN, VOCAB_SIZE = 12, 160, 96
LIMITS = EngineLimits(max_model_len=256, max_num_seqs=4, max_prefill_tokens=64, num_candidates=8)
LENGTHS = (3, 17, 9, 1, 40, 5, 30, 12)


def load_on_host(folder: Path, *, max_num_seqs: int, max_model_len: int) -> ModelRunner:
    """The folder's decoder on the CPU."""
    spec = ModelSpec(
        id="tiny",
        source=str(folder),
        backend="tensorrt",
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
        options={"device": "host", "memory_reserve_mib": 0},
    )
    runner = load_model(spec, folder, print)
    assert isinstance(runner, ModelRunner)
    return runner


def make_prompts(lengths: tuple[int, ...]) -> list[list[int]]:
    """Random prompts of these lengths."""
    rng = np.random.default_rng(11)
    return [rng.integers(0, VOCAB_SIZE, size=length).tolist() for length in lengths]


class HostContract(RunnerContract):
    """Four slots, so that decodes are rounded up and written beside."""

    folder: Path
    dtype: ClassVar[Literal["fp32", "fp16"]]

    @pytest.fixture(autouse=True)
    def take_folder(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """A tiny decoder, exported once."""
        if not hasattr(type(self), "folder"):
            folder = write_checkpoint(tmp_path_factory.mktemp("tiny"))
            export_decoder(
                folder, folder, target="tensorrt", precision=self.dtype, activations=self.dtype
            )
            type(self).folder = folder

    def make_runner(self) -> ModelRunner:
        """On the CPU, with far fewer candidates than ids."""
        decoder = read_decoder(self.folder)
        return TensorRtRunner(
            HostDevice(decoder, LIMITS),
            decoder.io,
            LIMITS,
            max_num_seqs=LIMITS.max_num_seqs,
            max_model_len=LIMITS.max_model_len,
            prefix_cache_bytes=2**20,
            verify_margin=HOST_VERIFY_MARGIN if self.dtype == "fp32" else None,
        )


class TestHost(HostContract):
    """As `provider export` writes decoders by default."""

    dtype = "fp32"


class TestHostInHalf(HostContract):
    """Caches of two bytes a value."""

    dtype = "fp16"


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of each family."""
    return write_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def runner(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelRunner]:
    """Its export, loaded."""
    folder = tmp_path_factory.mktemp("decoder")
    export_decoder(checkpoint, folder, target="tensorrt")
    runner = load_on_host(folder, max_num_seqs=MAX_NUM_SEQS, max_model_len=MAX_MODEL_LEN)
    runner.warm_up()
    yield runner
    runner.close()


def test_greedy_tokens_equal_a_plain_forward_pass(runner: ModelRunner, checkpoint: Path) -> None:
    """Eight rows, from windows of 64 positions on, beyond the sliding windows in the end."""
    reference, prompts = ReferenceDecoder(checkpoint), make_prompts(LENGTHS)
    expected = [reference.greedy(prompt, 16) for prompt in prompts]
    assert generate_greedily(runner, prompts, 16) == expected


def test_logits_equal_a_plain_forward_pass(runner: ModelRunner, checkpoint: Path) -> None:
    """At every position, more of them than the runner keeps rows of logits for."""
    [prompt] = make_prompts((60,))
    logits = prefill_all(runner, prompt)
    np.testing.assert_allclose(logits, ReferenceDecoder(checkpoint).logits(prompt), atol=1e-3)


def test_rows_that_are_no_power_of_two_leave_others_alone(runner: ModelRunner) -> None:
    """Three rows decode as four, while a prompt is half computed in the fourth slot."""
    prompts = make_prompts((9, 14, 5, 40))
    expected = generate_greedily(runner, prompts, 8)
    answers = [[prefill(runner, slot, prompt)] for slot, prompt in enumerate(prompts[:3])]
    prefill_logits(runner, 3, prompts[3][:20])
    for step in range(7):
        lengths = [len(prompt) + step for prompt in prompts[:3]]
        for answer, token_id in zip(
            answers, decode(runner, [answer[-1] for answer in answers], lengths), strict=True
        ):
            answer.append(token_id)
    assert answers == expected[:3]
    batch = prefill_rest(runner, 3, prompts[3], 20)
    assert batch == expected[3][0]


def prefill_all(runner: ModelRunner, prompt: list[int]) -> npt.NDArray[np.float32]:
    """Logits of every position of a prompt in the last slot."""
    slot = runner.info.max_num_seqs - 1
    return runner.execute_model(prefill_batch(slot, prompt, num_logits=len(prompt)))


def prefill_rest(runner: ModelRunner, slot: int, prompt: list[int], start: int) -> int:
    """Compute the rest of a prompt; return the likeliest next token."""
    batch = prefill_batch(slot, prompt[start:], num_computed_tokens=start)
    return int(runner.execute_model(batch)[0].argmax())

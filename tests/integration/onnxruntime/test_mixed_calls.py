"""Mixed calls have the bits of calls apart: what they say, and what they store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from provider_core import ModelSpec
from provider_core.testing import decode_batch, prefill_batch
from provider_export.export import export_decoder
from provider_onnxruntime import load_model
from provider_onnxruntime.runner import OnnxRuntimeRunner
from tests.tiny_checkpoints import write_checkpoint

VOCAB_SIZE, MAX_NUM_SEQS = 512, 12
RNG = np.random.default_rng(11)
LENGTHS = [int(length) for length in RNG.integers(2, 100, MAX_NUM_SEQS)]
PROMPTS = [RNG.integers(0, VOCAB_SIZE, length).tolist() for length in LENGTHS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of 256, with biases and a tied head."""
    folder = write_checkpoint(
        tmp_path_factory.mktemp("wide"),
        "qwen2",
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=768,
        head_dim=64,
    )
    export_decoder(folder, folder)
    return folder


@contextmanager
def serve(folder: Path, precision: str | None = "int8") -> Iterator[OnnxRuntimeRunner]:
    """A runner out of the cache."""
    spec = ModelSpec(
        id="wide",
        source="",
        max_num_seqs=MAX_NUM_SEQS,
        max_model_len=128,
        precision=precision,
        options={"cache": True},
    )
    runner = load_model(spec, folder)
    assert isinstance(runner, OnnxRuntimeRunner)
    try:
        yield runner
    finally:
        runner.close()


@pytest.fixture(scope="module")
def runner(folder: Path) -> Iterator[OnnxRuntimeRunner]:
    """In int8, ready for mixed calls."""
    with serve(folder) as runner:
        runner.warm_up()
        runner.wait_until_mixed()
        yield runner


@pytest.mark.parametrize(
    ("precision", "mixes"), [("int8", True), ("hybrid", True), ("int4", False), (None, False)]
)
def test_int8_is_mixed(folder: Path, precision: str | None, *, mixes: bool) -> None:
    """Its rows do not depend on how many others there are, and it reads most weights a call."""
    with serve(folder, precision) as runner:
        assert runner.info.mixes_phases == mixes


@pytest.mark.parametrize("num_rows", [1, 2, 5, MAX_NUM_SEQS - 1])
@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("num_logits", [0, 1])
def test_bits_are_those_of_calls_apart(
    runner: OnnxRuntimeRunner, num_rows: int, start: int, num_logits: int
) -> None:
    """Of the prompt and of every row, in this call and in the one that reads what it stored."""
    for size in (2, 7, 31, 64):
        text = RNG.integers(0, VOCAB_SIZE, start + size).tolist()
        new_ids = RNG.integers(0, VOCAB_SIZE, num_rows).tolist()
        results = []
        for is_mixed in (True, False):  # never after calls that stored the same
            for slot, prompt in enumerate(PROMPTS[:num_rows]):
                runner.execute_model(prefill_batch(slot, prompt))
            if start:
                runner.execute_model(prefill_batch(num_rows, text[:start], num_logits=0))
            prefill = prefill_batch(
                num_rows, text[start:], num_computed_tokens=start, num_logits=num_logits
            )
            decode = decode_batch(new_ids, LENGTHS[:num_rows])
            if is_mixed:
                logits = runner.execute_mixed(prefill, decode).copy()
            else:
                first = runner.execute_model(prefill).copy()
                logits = np.concatenate([first, runner.execute_model(decode)])
            ends = [*(length + 1 for length in LENGTHS[:num_rows]), len(text)]
            after = runner.execute_model(decode_batch([9] * (num_rows + 1), ends))
            results.append((logits, after.copy()))
        assert results[0][0].shape == (num_logits + num_rows, VOCAB_SIZE)
        for mixed, apart in zip(*results, strict=True):
            np.testing.assert_array_equal(mixed, apart)


def test_before_it_is_ready_calls_are_made_apart(folder: Path) -> None:
    """With the same bits."""
    prefill, decode = prefill_batch(1, range(9)), decode_batch([4], [0])
    with serve(folder) as runner:
        early = runner.execute_mixed(prefill, decode).copy()
        runner.warm_up()
        runner.wait_until_mixed()
        np.testing.assert_array_equal(runner.execute_mixed(prefill, decode), early)


def test_without_a_readable_graph_it_serves_all_the_same(folder: Path) -> None:
    """One that somebody broke after it was compared with the manifest."""
    prefill, decode = prefill_batch(1, range(9)), decode_batch([4], [0])
    with serve(folder) as runner:
        [path] = (folder / ".provider-cache").glob("*/mixed.onnx")
        content = path.read_bytes()
        path.write_bytes(b"no model")
        with capture_logs() as logs:
            runner.warm_up()
            runner.wait_until_mixed()
        path.write_bytes(content)
        assert [line["event"] for line in logs] == ["mixed.unavailable"]
        assert runner.execute_mixed(prefill, decode).shape == (2, VOCAB_SIZE)

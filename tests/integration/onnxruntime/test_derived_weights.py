"""A decoder in each derived precision: near the one supplied, and by the step's size in hybrid."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from provider_core import ModelRunner, ModelSpec
from provider_core.testing import decode_batch
from provider_export.export import export_decoder
from provider_onnxruntime import load_model
from tests.generation import prefill_logits
from tests.tiny_checkpoints import write_checkpoint

VOCAB_SIZE = 512
PROMPT = np.random.default_rng(8).integers(0, VOCAB_SIZE, 60).tolist()


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


def make_runner(folder: Path, precision: str | None, **options: object) -> ModelRunner:
    """The backend in a precision."""
    spec = ModelSpec(
        id="wide",
        source="",
        max_num_seqs=4,
        max_model_len=128,
        precision=precision,
        options=options,
    )
    runner = load_model(spec, folder)
    assert isinstance(runner, ModelRunner)
    runner.warm_up()
    return runner


def relative_error(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """Root mean square; 1.4 if the two have nothing to do with each other."""
    return float(np.sqrt(np.square(found - expected).mean() / np.square(expected).mean()))


def logits_of(
    folder: Path, precision: str | None, chunk: int = 128, **options: object
) -> npt.NDArray[np.float32]:
    """Of the prompt's last position."""
    runner = make_runner(folder, precision, **options)
    logits = prefill_logits(runner, 0, PROMPT, chunk)
    runner.close()
    return logits


@pytest.mark.parametrize(("precision", "tolerance"), [("int8", 0.2), ("int4", 0.6)])
def test_derived_weights_say_nearly_the_same(
    folder: Path, precision: str, tolerance: float
) -> None:
    """Random weights exaggerate the difference."""
    error = relative_error(logits_of(folder, precision), logits_of(folder, None))
    assert 0 < error < tolerance


@pytest.mark.parametrize(
    ("precision", "reported"), [(None, "fp32"), ("int4", "int4"), ("int8", "int8")]
)
def test_what_runs_is_what_is_reported(folder: Path, precision: str | None, reported: str) -> None:
    """Hybrid is reported as int4, the lowest that a request may meet."""
    for asked in {precision, "hybrid"} if precision == "int4" else {precision}:
        runner = make_runner(folder, asked)
        assert runner.info.precision == reported
        runner.close()


@pytest.mark.parametrize(
    ("precision", "margin"), [(None, 0.02), ("int8", 0.25), ("int4", 0.25), ("hybrid", None)]
)
def test_drafts_are_verified_by_the_weights_that_decode(
    folder: Path, precision: str | None, margin: float | None
) -> None:
    """Hybrid would verify in int8 what it decodes in int4, which is another text."""
    runner = make_runner(folder, precision)
    assert runner.info.verify_margin == margin
    runner.close()


def test_hybrid_computes_prompts_in_int8_however_they_are_cut(folder: Path) -> None:
    """To the bit, also where a chunk is as short as the rows that are decoded in int4."""
    expected = logits_of(folder, "int8")
    for chunk in (128, 6, 2):
        cut = logits_of(folder, "hybrid", chunk=chunk, hybrid_max_int4_rows=8)
        np.testing.assert_array_equal(cut, expected)


@pytest.mark.parametrize(("max_rows", "pinned"), [(2, "int8"), (3, "int4")])
def test_hybrid_decodes_few_rows_in_int4(folder: Path, max_rows: int, pinned: str) -> None:
    """To the bit: three rows are few or many as the setting says."""
    decoded = []
    for precision, options in (("hybrid", {"hybrid_max_int4_rows": max_rows}), (pinned, {})):
        runner = make_runner(folder, precision, **options)
        decoded.append(runner.execute_model(decode_batch([5, 6, 7], [0, 0, 0])).copy())
        runner.close()
    np.testing.assert_array_equal(decoded[0], decoded[1])


def test_weight_sets_of_a_hybrid_share_keys_and_values(folder: Path) -> None:
    """A prompt in int8, then one token in int4, which attends to what int8 stored."""
    decoded = {}
    for precision in (None, "int4", "int8", "hybrid"):
        runner = make_runner(folder, precision)
        prefill_logits(runner, 0, PROMPT)
        decoded[precision] = runner.execute_model(decode_batch([5], [len(PROMPT)])).copy()
        runner.close()
    assert relative_error(decoded["hybrid"], decoded[None]) < 0.6
    for alone in ("int4", "int8"):
        assert not np.array_equal(decoded["hybrid"], decoded[alone])

"""A text that came to NaN fails alone, whatever attention reads beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from provider_core import ModelRunner, ModelSpec
from provider_core.testing import decode_batch, prefill_batch
from provider_export.export import export_decoder
from provider_onnxruntime import load_model
from tests.decoder_variants import GrowingTarget, write_variant
from tests.generation import generate_greedily, prefill
from tests.tiny_checkpoints import write_checkpoint

TOKEN_OF_NAN = 77
PROMPT = [3, 14, 15, 92, 65, 35, 89, 79]
PROMPTS = [PROMPT, PROMPT[::-1]]
LONGER = [*range(30), TOKEN_OF_NAN, *range(10)]
CONVENTIONS = ("genai", "scatter", "optimum")


def write_decoder(convention: str, folder: Path, **options: Any) -> Path:
    """A tiny decoder of a convention, for which one id's vector is NaN."""
    checkpoint = write_checkpoint(folder / "checkpoint", **options)
    out = folder / "out"
    if convention == "optimum":
        write_variant(checkpoint, out, GrowingTarget)
    else:
        export_decoder(checkpoint, out, target="cpu" if convention == "genai" else "tensorrt")
    model = onnx.load(str(out / "model.onnx"))
    [table] = [w for w in model.graph.initializer if w.name == "model.embed_tokens.weight"]
    values = numpy_helper.to_array(table).copy()
    values[TOKEN_OF_NAN] = np.nan
    table.CopyFrom(numpy_helper.from_array(values, table.name))
    onnx.save(model, str(out / "model.onnx"))
    return out


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_next_text_in_a_slot_is_what_it_was(tmp_path: Path, convention: str) -> None:
    """After a prompt, a decode, and a prompt that was left before it had logits."""
    folder = write_decoder(convention, tmp_path)
    runner = load_model(ModelSpec(id="x", source="", max_num_seqs=4, max_model_len=128), folder)
    assert isinstance(runner, ModelRunner)
    expected = generate_greedily(runner, PROMPTS, 10)

    for slot in range(2):
        assert np.isnan(runner.execute_model(prefill_batch(slot, LONGER))).all()
    assert generate_greedily(runner, PROMPTS, 10) == expected

    for slot in range(2):
        prefill(runner, slot, PROMPT)
    logits = runner.execute_model(decode_batch([1, TOKEN_OF_NAN], [8, 8]))
    assert np.isnan(logits).all(axis=1).tolist() == [False, True]
    assert generate_greedily(runner, PROMPTS, 10) == expected

    runner.execute_model(prefill_batch(2, LONGER, num_logits=0))
    runner.move_slot(2, 0, len(LONGER))
    runner.execute_model(prefill_batch(1, LONGER, num_logits=0))
    assert generate_greedily(runner, PROMPTS, 10) == expected
    runner.close()


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_text_that_moves_is_what_it_was(tmp_path: Path, convention: str) -> None:
    """Its new slot was left by a longer one that came to NaN, before that had logits."""
    folder = write_decoder(convention, tmp_path)
    runner = load_model(ModelSpec(id="x", source="", max_num_seqs=4, max_model_len=128), folder)
    assert isinstance(runner, ModelRunner)
    prefill(runner, 0, PROMPT)
    expected = runner.execute_model(decode_batch([1], [8])).copy()
    runner.execute_model(prefill_batch(0, LONGER, num_logits=0))
    prefill(runner, 1, PROMPT)

    runner.move_slot(1, 0, len(PROMPT))

    np.testing.assert_array_equal(runner.execute_model(decode_batch([1], [8])), expected)
    runner.close()


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_logit_that_is_no_number_does_not_end_its_text(tmp_path: Path, value: float) -> None:
    """The text goes on where what it asks rules that id out, and what it was is still there."""
    folder = write_decoder("scatter", tmp_path, tie_word_embeddings=False)
    spec = ModelSpec(id="x", source="", max_num_seqs=4, max_model_len=128)
    decoded = []
    for _ in range(2):
        runner = load_model(spec, folder)
        assert isinstance(runner, ModelRunner)
        prefill(runner, 0, PROMPT)
        decoded.append(runner.execute_model(decode_batch([1], [8])).copy())
        runner.close()
        model = onnx.load(str(folder / "model.onnx"))
        [table] = [w for w in model.graph.initializer if w.name == "logits.weight"]
        values = numpy_helper.to_array(table).copy()
        values[:, 0] = value
        table.CopyFrom(numpy_helper.from_array(values, table.name))
        onnx.save(model, str(folder / "model.onnx"))
    assert not np.isfinite(decoded[1][0, 0])
    np.testing.assert_array_equal(decoded[0][0, 1:], decoded[1][0, 1:])

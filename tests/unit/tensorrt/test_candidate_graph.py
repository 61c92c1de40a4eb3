"""The part of the graph that chooses candidates, as ONNX Runtime computes it, against numpy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from provider_core.decoder_io import DecoderIO, TensorSpec
from provider_export.export import export_decoder
from provider_tensorrt.candidate_graph import (
    ALLOWED,
    IDS,
    INVERSE_TEMPERATURE,
    LOG_MASSES,
    LOG_SUM_EXPS,
    LOGITS,
    add_candidates,
)
from provider_tensorrt.decoder_graph import fit_decoder, read_decoder
from provider_tensorrt.shapes import bitmask_bytes
from tests.tiny_checkpoints import FAMILIES, write_checkpoint
from tests.unit.engine.candidate_runner import choose_candidates

Outputs = Mapping[str, npt.NDArray[Any]]
NAMES = (LOGITS, IDS, LOG_MASSES, LOG_SUM_EXPS)


def choose(
    logits: npt.NDArray[Any], k: int, masks: npt.NDArray[np.uint8], factors: npt.NDArray[np.float32]
) -> Outputs:
    """What the graph makes of logits `[n, positions, vocab_size]`."""
    dtype = helper.np_dtype_to_tensor_dtype(logits.dtype)
    info = helper.make_tensor_value_info("logits", dtype, ("n", "m", logits.shape[2]))
    graph = helper.make_graph([], "nothing but logits", [info], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)
    io = DecoderIO(
        convention="scatter",
        inputs={},
        caches=(),
        cache_dtype="float32",
        logits=TensorSpec("logits", logits.dtype.name, (None, None, logits.shape[2])),
        vocab_size=logits.shape[2],
        batch_size=None,
        max_cache_len=None,
    )
    add_candidates(model, io, k)
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString())
    feeds = {"logits": logits, ALLOWED: masks, INVERSE_TEMPERATURE: factors}
    return dict(zip(NAMES, session.run(NAMES, feeds), strict=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("vocab_size", [33, 64, 1000])
def test_candidates_are_those_of_a_plain_sort(vocab_size: int, dtype: type) -> None:
    """Of what each row's mask allows; sums of those at the row's temperature, and of all at 1."""
    rng = np.random.default_rng(3)
    logits: npt.NDArray[Any] = rng.normal(0, 5, (4, 1, vocab_size)).astype(dtype)
    bits = rng.random((4, 8 * bitmask_bytes(vocab_size))) < 0.3
    bits[1] = True
    masks = np.packbits(bits, axis=1, bitorder="little")
    factors = np.array([1.0, 0.5, 2.0, 10.0], np.float32)

    found = choose(logits, 5, masks, factors)

    bitmasks = dict(enumerate(masks.view(np.int32)))
    expected = choose_candidates(logits[:, 0].astype(np.float32), 5, factors, bitmasks)
    np.testing.assert_array_equal(found[LOGITS][:, 0], expected.logits)
    for row, ids in enumerate(found[IDS][:, 0]):
        assert bits[row, ids].all()
        np.testing.assert_array_equal(logits[row, 0, ids].astype(np.float32), expected.logits[row])
    np.testing.assert_allclose(found[LOG_MASSES][:, 0, 0], expected.log_masses, atol=1e-5)
    np.testing.assert_allclose(found[LOG_SUM_EXPS][:, 0, 0], expected.log_sum_exps, atol=1e-5)
    assert found[IDS].dtype == np.int32


def test_every_position_has_its_own() -> None:
    """With the mask of its row."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 5, (2, 3, 40)).astype(np.float32)
    masks = np.full((2, bitmask_bytes(40)), 0xFF, np.uint8)
    masks[1] = 0
    masks[1, 0] = 1 << 3
    found = choose(logits, 2, masks, np.ones(2, np.float32))
    assert found[IDS][0, :, 0].tolist() == logits[0].argmax(axis=1).tolist()
    assert found[IDS][1, :, 0].tolist() == [3, 3, 3]
    assert (found[LOGITS][1, :, 1] == -np.inf).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_shows_in_the_sum(bad: float) -> None:
    """Also where a mask hides it, and nowhere else."""
    logits = np.zeros((3, 1, 40), np.float32)
    logits[1, 0, 7] = bad
    logits[2, 0, 1:] = -np.inf
    masks = np.full((3, bitmask_bytes(40)), 0xFF, np.uint8)
    masks[1, 0] = 0x7F
    found = choose(logits, 2, masks, np.ones(3, np.float32))
    assert np.isfinite(found[LOG_SUM_EXPS][:, 0, 0]).tolist() == [True, False, True]


def test_no_more_than_the_vocabulary_is_chosen() -> None:
    """A model of few ids has all of them as candidates."""
    logits = np.arange(10, dtype=np.float32).reshape(1, 1, 10)
    masks = np.full((1, bitmask_bytes(10)), 0xFF, np.uint8)
    found = choose(logits, 256, masks, np.ones(1, np.float32))
    assert found[IDS].tolist() == [[[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]]]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoder_has_its_logits_as_before(family: str, tmp_path: Path) -> None:
    """Candidates are added beside them, and the graph is a sound one."""
    source = write_checkpoint(tmp_path / "source", family)
    decoder = read_decoder(export_decoder(source, tmp_path / "model", target="tensorrt").parent)
    model = fit_decoder(decoder, 32)
    before = [value.name for value in model.graph.output]

    add_candidates(model, decoder.io, 5)

    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.output] == [*before, IDS, LOGITS, *NAMES[2:]]

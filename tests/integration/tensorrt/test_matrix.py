"""Every family, in every convention and precision, on every runtime that needs no GPU.

The reference is a plain forward pass in numpy over the weights as they were stored. The column
`engine` is what can be said without a GPU: the parser takes the graph, and engines of it are built
for Ada and for Blackwell. What an engine would compute is the graph that the host device runs.

========  ==========================================  =============================================
runtime   convention, exported for                    computes
========  ==========================================  =============================================
genai     GroupQueryAttention, the CPU                ONNX Runtime backend
optimum   caches that grow                            ONNX Runtime backend
scatter   TensorScatter, TensorRT                     ONNX Runtime backend
host      TensorScatter and a window, TensorRT        TensorRT backend on the host device
engine    as host                                     nothing here: parsed, and built
========  ==========================================  =============================================
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import provider_onnxruntime
import provider_tensorrt
from provider_core import ModelRunner, ModelSpec, hookspecs
from provider_core.plugins import PluginManager
from provider_core.testing import prefill_batch
from provider_export.export import Activations, Precision, TargetName, export_decoder
from provider_tensorrt.artefact import EngineLimits
from provider_tensorrt.builder import build_engine, parse_decoder
from provider_tensorrt.decoder_graph import read_decoder
from provider_tensorrt.library import TensorRt
from tests.decoder_variants import GrowingTarget, write_variant
from tests.generation import generate_greedily
from tests.reference_decoder import ReferenceDecoder
from tests.stored_weights import write_stored
from tests.tiny_checkpoints import FAMILIES, write_checkpoint

PROMPT = np.random.default_rng(5).integers(0, 96, size=30).tolist()  # longer than any window
NUM_TOKENS = 12
BLOCK_SIZE = 16  # divides the inputs of all layers, as TensorRT's parser demands
LIMITS = EngineLimits(max_model_len=64, max_num_seqs=4, max_prefill_tokens=32)
HOST = {"device": "host", "memory_reserve_mib": 0}
CAPABILITIES = ("8.9", "12.0")

FLOAT32, HALF, QUANTIZED = 1e-5, 0.01, 0.05
"""Root-mean-square errors, relative: sums in another order; float16's rounding; the ONNX Runtime
backend's 8-bit activations, which its quantised weights meet."""

SURE = 6
"""A likeliest token leads by so many errors where it has to be the same."""


@dataclass(frozen=True)
class Form:
    """How a decoder is exported."""

    precision: Precision
    activations: Activations = "fp32"


FORMS = {
    "fp32": Form("fp32"),
    "fp16": Form("fp16"),
    "int8": Form("int8"),
    "int4": Form("int4"),
    "fp16 throughout": Form("fp16", "fp16"),
    "int4 in fp16": Form("int4", "fp16"),
    "fp8 in fp16": Form("fp8", "fp16"),
    "bf16 throughout": Form("bf16", "bf16"),
    "int8 in bf16": Form("int8", "bf16"),
}
RUN = {name: form for name, form in FORMS.items() if form.activations != "bf16"}


@dataclass(frozen=True)
class Answer:
    """Logits of every position of the prompt, and greedy tokens behind it."""

    logits: npt.NDArray[Any]
    token_ids: Sequence[int]


def export(source: Path, folder: Path, target: TargetName, form: Form) -> Path:
    """The decoder's folder."""
    export_decoder(
        source,
        folder,
        target=target,
        precision=form.precision,
        activations=form.activations,
        block_size=BLOCK_SIZE,
    )
    return folder


def expect(source: Path, folder: Path, target: TargetName, form: Form) -> Answer:
    """What numpy computes with the weights as stored."""
    stored = write_stored(source, folder, target, form.precision, BLOCK_SIZE)
    reference = ReferenceDecoder(stored)
    return Answer(reference.logits(PROMPT), reference.greedy(PROMPT, NUM_TOKENS))


def answer(backend: ModuleType, folder: Path, **options: object) -> Answer:
    """What a backend computes."""
    spec = ModelSpec(
        id="tiny",
        source=str(folder),
        backend=backend.NAME,
        max_num_seqs=2,
        max_model_len=LIMITS.max_model_len,
        options=options,
    )
    plugins = PluginManager()
    plugins.register(backend)
    runner = plugins.first(hookspecs.load_model, model=spec, model_dir=folder, report=print)
    assert isinstance(runner, ModelRunner)
    try:
        logits = runner.execute_model(prefill_batch(0, PROMPT, num_logits=len(PROMPT))).copy()
        return Answer(logits, generate_greedily(runner, [PROMPT], NUM_TOKENS)[0])
    finally:
        runner.close()


def compare(found: Answer, expected: Answer, tolerance: float) -> None:
    """Logits within the tolerance; the same tokens, where rounding does not choose them."""
    scale = np.sqrt(np.square(expected.logits).mean())
    error = np.sqrt(np.square(found.logits - expected.logits).mean()) / scale
    assert error < tolerance
    second, first = np.sort(expected.logits, axis=-1)[:, -2:].T
    is_sure = first - second > SURE * tolerance * scale
    assert is_sure.sum() > len(PROMPT) / 5
    likeliest = expected.logits.argmax(axis=-1)[is_sure]
    np.testing.assert_array_equal(found.logits.argmax(axis=-1)[is_sure], likeliest)
    if tolerance == FLOAT32:
        assert found.token_ids == expected.token_ids


@pytest.mark.parametrize("name", RUN)
@pytest.mark.parametrize("family", FAMILIES)
def test_runtimes_agree(family: str, name: str, tmp_path: Path, library: TensorRt) -> None:
    """Each with the reference, and so with each other."""
    form = FORMS[name]
    source = write_checkpoint(tmp_path / "source", family)
    is_half = form.activations == "fp16"
    is_quantized = form.precision in {"int8", "int4"}
    tolerance = QUANTIZED if is_quantized else HALF if is_half else FLOAT32

    scatter = export(source, tmp_path / "scatter", "tensorrt", form)
    expected = expect(source, tmp_path / "stored", "tensorrt", form)
    compare(answer(provider_onnxruntime, scatter), expected, tolerance)
    host = answer(provider_tensorrt, scatter, **HOST)
    compare(host, expected, HALF if is_half else FLOAT32)
    assert parse_decoder(library, read_decoder(scatter), LIMITS).network.num_layers > 0

    if not is_half:
        genai = export(source, tmp_path / "genai", "cpu", form)
        expected = expect(source, tmp_path / "stored_genai", "cpu", form)
        compare(answer(provider_onnxruntime, genai), expected, tolerance)
    if name == "fp32" and family == "llama":  # what other exporters write; no family differs in it
        optimum = write_variant(source, tmp_path / "optimum", GrowingTarget)
        compare(answer(provider_onnxruntime, optimum), expected, tolerance)


@pytest.mark.parametrize("name", ["bf16 throughout", "int8 in bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_parser_takes_bfloat16(
    family: str, name: str, tmp_path: Path, library: TensorRt
) -> None:
    """No CPU runtime here computes in it."""
    source = write_checkpoint(tmp_path / "source", family)
    folder = export(source, tmp_path / "scatter", "tensorrt", FORMS[name])

    assert parse_decoder(library, read_decoder(folder), LIMITS).network.num_layers > 0


@pytest.mark.parametrize("name", ["int8", "int4 in fp16", "fp8 in fp16", "int8 in bf16"])
def test_engines_are_built_of_quantised_weights(
    name: str, tmp_path: Path, library: TensorRt
) -> None:
    """For Ada and for Blackwell; of floats for all families in `test_build_engine`."""
    source = write_checkpoint(tmp_path / "source", "qwen3")
    decoder = read_decoder(export(source, tmp_path / "scatter", "tensorrt", FORMS[name]))

    for capability in CAPABILITIES:
        engine, _ = build_engine(library, decoder, LIMITS, capability)
        assert engine.nbytes > 1000

"""Which weights a model runs with, by what it has and what is asked."""

from pathlib import Path

import pytest

from provider_core import ConfigurationError
from provider_core.decoder_io import CacheTensor, DecoderIO, TensorSpec
from provider_onnxruntime.model_folder import DecoderFile
from provider_onnxruntime.weight_sets import WeightPlan, WeightSet, choose_weights

INT4, INT8 = WeightSet("int4", 128), WeightSet("int8")
EXACT_INT4 = WeightSet("int4", 128, is_row_exact=True)


def choose(
    stored: str | None,
    asked: str | None = None,
    *,
    runs_as: str | None = None,
    provider: str = "cpu",
    is_deterministic: bool = False,
    cache_dtype: str = "float32",
) -> WeightPlan:
    """The plan for a decoder of these weights."""
    io = DecoderIO(
        convention="genai",
        inputs={},
        logits=TensorSpec("logits", "float32", (None, None, 8)),
        caches=(CacheTensor("past", "present", 1, 8),),
        cache_dtype=cache_dtype,
        vocab_size=8,
        batch_size=None,
        max_cache_len=None,
    )
    return choose_weights(
        DecoderFile(Path("model.onnx"), io, stored, runs_as),
        asked,
        provider=provider,
        block_size=128,
        is_deterministic=is_deterministic,
    )


@pytest.mark.parametrize("stored", ["fp32", "int8", "int4", "fp8", None])
def test_weights_are_served_as_supplied_unless_more_is_asked(stored: str | None) -> None:
    """No precision, no word in the file: nothing is derived."""
    assert choose(stored) == WeightPlan(stored, (None,))
    assert choose(stored, runs_as="fp16") == WeightPlan(stored, (None,))


def test_a_graph_in_half_precision_is_served_as_supplied() -> None:
    """What it was exported as is derived for float32."""
    assert choose("int4", runs_as="int4", cache_dtype="float16") == WeightPlan("int4", (None,))


def test_asking_for_floats_as_they_are_is_as_supplied() -> None:
    """`fp16` asked of fp16."""
    assert choose("fp16", "fp16") == WeightPlan("fp16", (None,))


@pytest.mark.parametrize("stored", ["fp32", "fp16", "bf16", "int8"])
def test_each_precision_has_its_weight_sets(stored: str) -> None:
    """Hybrid is both, reported as the lowest that a request may meet."""
    assert choose(stored, "int4") == WeightPlan("int4", (INT4,))
    assert choose(stored, "int8") == WeightPlan("int8", (INT8,))
    assert choose(stored, "hybrid") == WeightPlan("int4", (INT4, INT8))


def test_a_file_says_how_it_is_meant_to_run_and_the_operator_has_the_last_word() -> None:
    """The exporter writes int8 weights into a hybrid file."""
    assert choose("int8", runs_as="hybrid") == WeightPlan("int4", (INT4, INT8))
    assert choose("int8", "int8", runs_as="hybrid") == WeightPlan("int8", (INT8,))


@pytest.mark.parametrize(
    ("stored", "asked", "plan"),
    [
        ("fp16", "hybrid", WeightPlan("int8", (INT8,))),
        ("fp16", "int8", WeightPlan("int8", (INT8,))),
        ("fp16", "int4", WeightPlan("int4", (EXACT_INT4,))),
        ("int4", "hybrid", WeightPlan("int4", (EXACT_INT4,))),
        ("int4", None, WeightPlan("int4", (EXACT_INT4,))),
        ("fp16", None, WeightPlan("fp16", (None,))),
    ],
)
def test_a_deterministic_model_runs_one_weight_set(
    stored: str, asked: str | None, plan: WeightPlan
) -> None:
    """Of hybrid the better one; int4 in blocks whose rows do not depend on each other."""
    assert choose(stored, asked, is_deterministic=True) == plan


@pytest.mark.parametrize(
    ("stored", "asked", "complaint"),
    [
        ("int4", "int8", "int8 cannot be had from weights in int4: what they lost stays lost"),
        ("fp32", "fp16", "fp16 cannot be had from weights in fp32"),
        ("fp32", "int3", "int3 cannot be had from weights in fp32"),
        ("fp8", "int4", "no precision is derived from weights in fp8"),
        (None, "int8", "no precision is derived from weights in None"),
        ("int4", "fp32", "as supplied, or derive one of int4, hybrid$"),
        ("int8", "fp32", "as supplied, or derive one of int4, int8, hybrid$"),
        ("fp8", "fp32", "as supplied$"),
    ],
)
def test_what_cannot_be_derived_is_refused(stored: str | None, asked: str, complaint: str) -> None:
    """With the reason."""
    with pytest.raises(ConfigurationError, match=complaint):
        choose(stored, asked)


def test_on_a_gpu_nothing_is_derived() -> None:
    """An explicit wish is refused; a file's own is for the CPU and does not count there."""
    with pytest.raises(ConfigurationError, match="hybrid is derived for the CPU only"):
        choose("fp16", "hybrid", provider="cuda")
    with pytest.raises(ConfigurationError, match=r"serve them as supplied$"):
        choose("fp16", "fp32", provider="cuda")
    assert choose("int8", runs_as="hybrid", provider="cuda") == WeightPlan("int8", (None,))

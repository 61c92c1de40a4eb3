"""Which precision a model is listed and billed with."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from provider_core import ModelSpec, RunnerInfo
from provider_core.catalog import apply_runner_info, complete_spec

SPEC = ModelSpec(id="tiny", source="/models/tiny")


@pytest.mark.parametrize(
    ("precision", "quantization", "config", "expected"),
    [
        (None, None, {}, None),
        (None, None, {"quantization_config": {"bits": 4}}, "int4"),
        (None, None, {"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        (None, None, {"quantization_config": {"bits": 3}}, None),
        ("int8", None, {"quantization_config": {"bits": 4}}, "int8"),
        ("hybrid", None, {"quantization_config": {"bits": 8}}, None),
        ("q4f16", None, {}, None),
        ("fp16", "int8", {}, "int8"),
    ],
)
def test_the_listed_precision_is_the_most_explicit_one(
    precision: str | None,
    quantization: str | None,
    config: dict[str, object],
    expected: str | None,
    tmp_path: Path,
) -> None:
    """What is listed is declared or found, never guessed."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = replace(SPEC, precision=precision, quantization=quantization)

    assert complete_spec(spec, tmp_path).quantization == expected


@pytest.mark.parametrize(
    ("declared", "runs_as", "expected"),
    [
        (None, "bf16", "bf16"),
        ("int8", "bf16", "int8"),
        ("fp16", "bf16", "fp16"),
        ("fp32", None, "fp32"),
        ("fp32", "q4f16", "fp32"),
        ("q4f16", "int4", "q4f16"),
        ("fp32", "int4", "int4"),
        ("int8", "int4", "int4"),
        ("bf16", "fp8", "fp8"),
    ],
)
def test_no_higher_precision_is_listed_than_runs(
    declared: str | None, runs_as: str | None, expected: str
) -> None:
    """What a runner knows wins over a higher claim, and that is logged; a lower claim stays."""
    spec = replace(SPEC, max_model_len=512, quantization=declared)

    info = RunnerInfo(
        backend="scripted",
        backend_version="1",
        device="cpu",
        max_num_seqs=32,
        max_model_len=512,
        vocab_size=10,
        precision=runs_as,
    )

    with capture_logs() as logs:
        listed = apply_runner_info(spec, info).quantization

    assert listed == expected
    contradiction = {
        "event": "model.quantization_lowered",
        "log_level": "warning",
        "model": "tiny",
        "declared": declared,
        "listed": expected,
    }
    assert logs == ([] if declared in {None, expected} else [contradiction])

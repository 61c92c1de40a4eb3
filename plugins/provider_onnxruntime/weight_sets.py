"""Which weights a model runs with: those supplied, or others that are derived at load.

=========  ===================================  ============================================
precision  runs                                 reported as
=========  ===================================  ============================================
int4       int4 blocks                          int4
int8       int8, activations quantised by row   int8
hybrid     int4 to decode few rows, int8 for    int4, the lowest that a request may meet
           all else, over the same slots
=========  ===================================  ============================================

Two weight sets round differently, and the number of rows in a step chooses between them: a
deterministic model runs the better one only, int8.
"""

from dataclasses import dataclass
from typing import Literal

from provider_core import ConfigurationError
from provider_onnxruntime.model_folder import DecoderFile

DERIVED = frozenset({"int4", "int8", "hybrid"})
FLOATS = frozenset({"fp32", "fp16", "bf16"})
ROW_EXACT_BLOCK_SIZE = 32
"""Of int4, if a row must not depend on how many others there are.

On AVX-512 processors ONNX Runtime multiplies blocks of 64 and more for two rows at a time, and an
odd last row by another kernel that rounds differently.
"""


_FLOAT_MARGIN, _QUANTIZED_MARGIN = 0.02, 0.25  # natural-log units


@dataclass(frozen=True, slots=True)
class WeightSet:
    """Weights to derive.

    Attributes:
        precision: Of the linear layers.
        block_size: Of int4, where weights are not supplied in blocks already.
        is_row_exact: A row's result must not depend on how many others there are.
    """

    precision: Literal["int4", "int8"]
    block_size: int = 128
    is_row_exact: bool = False


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """What to run.

    Attributes:
        precision: As reported, in OpenRouter's vocabulary.
        weight_sets: `None` is the supplied weights; of two, the first decodes few rows.
    """

    precision: str | None
    weight_sets: tuple[WeightSet | None, ...]


def choose_weights(
    decoder: DecoderFile,
    asked: str | None,
    *,
    provider: str,
    block_size: int,
    is_deterministic: bool,
) -> WeightPlan:
    """Decide how a decoder runs.

    Args:
        decoder: The file; one that says how it is meant to run is run so by default.
        asked: The model's `precision`.
        provider: `cpu` or `cuda`.
        block_size: Of int4 that is derived.
        is_deterministic: One weight set only, whose rows do not depend on each other.

    Raises:
        ConfigurationError: The supplied weights do not give what is asked, or the device does not
            run it.
    """
    stored = decoder.precision
    is_float32 = decoder.io.cache_dtype == "float32"  # what weights are derived for
    wanted = asked or (decoder.runs_as if decoder.runs_as in DERIVED and is_float32 else None)
    if wanted is None and is_deterministic and stored == "int4" and provider == "cpu":
        wanted = "int4"
    if wanted is None or (wanted == stored and wanted not in DERIVED):
        return WeightPlan(stored, (None,))
    if wanted not in DERIVED:
        derivable = _derivable(stored) if provider == "cpu" else ()
        advice = f", or derive one of {', '.join(derivable)}" if derivable else ""
        raise ConfigurationError(
            f"precision {wanted} cannot be had from weights in {stored}; leave precision out to "
            f"serve them as supplied{advice}"
        )
    if provider != "cpu":
        if asked in {None, stored}:
            return WeightPlan(stored, (None,))
        raise ConfigurationError(
            f"precision {wanted} is derived for the CPU only; with provider {provider} weights "
            "are served as supplied"
        )
    derivable = _derivable(stored)
    if not derivable:
        raise ConfigurationError(f"no precision is derived from weights in {stored}")
    if wanted not in derivable:
        raise ConfigurationError(
            "precision int8 cannot be had from weights in int4: what they lost stays lost; "
            "supply the model in fp32, fp16 or int8"
        )
    int4, int8 = WeightSet("int4", block_size), WeightSet("int8")
    if is_deterministic:
        pinned = wanted if wanted != "hybrid" else ("int4" if stored == "int4" else "int8")
        only = int8 if pinned == "int8" else WeightSet("int4", block_size, is_row_exact=True)
        return WeightPlan(pinned, (only,))
    weight_sets = {"int4": (int4,), "int8": (int8,), "hybrid": (int4, int8)}[wanted]
    return WeightPlan(weight_sets[0].precision, weight_sets)


def _derivable(stored: str | None) -> tuple[str, ...]:
    """The precisions that weights can be served in on a CPU, beside their own."""
    if stored == "int4":
        return ("int4", "hybrid")
    return ("int4", "int8", "hybrid") if stored in FLOATS | {"int8"} else ()


def verify_margin(plan: WeightPlan, cache_dtype: str) -> float | None:
    """How far the logits of several positions may be from those of a decode; see `RunnerInfo`.

    In float32 they are some 1e-5 apart. Where activations are quantised, a last bit can move one
    of them by a whole step: up to 0.15 was measured. Half precision was not, and gets the same.

    Args:
        plan: What runs.
        cache_dtype: numpy's name.
    """
    if len(plan.weight_sets) > 1:
        return None
    is_exact = plan.precision in FLOATS and cache_dtype == "float32"
    return _FLOAT_MARGIN if is_exact else _QUANTIZED_MARGIN

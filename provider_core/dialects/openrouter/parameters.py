"""What a model can be asked for, as listings describe it: one table, three vocabularies.

The ranges are those that `dialects.openai.protocol` enforces; a parameter that is not described
here for a model is one that its requests cannot use.
"""

from collections.abc import Mapping
from typing import Any

from provider_core.types import Feature, ModelSpec

Descriptor = Mapping[str, Any]
"""A typed description of a parameter's values, in the grammar of OpenRouter's schema 2.4."""

ABOVE_ZERO = 1e-6
"""The least of a range that does not hold 0; the grammar has no word for what lies between."""

_SAMPLING: Mapping[str, Descriptor] = {
    "temperature": {"type": "range", "min": 0, "max": 2, "default": 1},
    "top_p": {"type": "range", "min": ABOVE_ZERO, "max": 1, "default": 1},
    "top_k": {"type": "integer", "min": 0, "default": 0},
    "min_p": {"type": "range", "min": 0, "max": 1, "default": 0},
    "top_a": {"type": "range", "min": 0, "max": 1, "default": 0},
    "frequency_penalty": {"type": "range", "min": -2, "max": 2, "default": 0},
    "presence_penalty": {"type": "range", "min": -2, "max": 2, "default": 0},
    "repetition_penalty": {"type": "range", "min": ABOVE_ZERO, "max": 2, "default": 1},
    "stop": {"type": "array", "max_items": 4},
    "seed": {"type": "integer"},
    "logit_bias": {"type": "unknown"},
}
_BY_FEATURE: Mapping[Feature, Mapping[str, Descriptor]] = {
    "logprobs": {
        "logprobs": {"type": "boolean"},
        "top_logprobs": {"type": "integer", "min": 0, "max": 20},
    },
    "tools": {
        "tools": {"type": "boolean"},
        "tool_choice": {"type": "boolean"},
        "parallel_tool_calls": {"type": "boolean"},
    },
    "json_mode": {"response_format": {"type": "boolean"}},
    "structured_outputs": {"structured_outputs": {"type": "boolean"}},
    "reasoning": {
        "reasoning": {"type": "boolean"},
        "include_reasoning": {"type": "boolean"},
    },
}
_BY_OUTPUT: Mapping[str, Mapping[str, Descriptor]] = {
    "embeddings": {"encoding_format": {"type": "enum", "values": ["float", "base64"]}},
    "rerank": {
        "top_n": {"type": "integer", "min": 1},
        "return_documents": {"type": "boolean"},
    },
}
_LEGACY_FEATURES: tuple[Feature, ...] = (
    "tools",
    "json_mode",
    "structured_outputs",
    "logprobs",
    "reasoning",
)


def descriptors(spec: ModelSpec, output: str) -> dict[str, Descriptor]:
    """The parameters of one kind of output, by name."""
    if output != "text":
        return dict(_BY_OUTPUT.get(output, {}))
    limit = {"type": "integer", "min": 1, "max": max_output_tokens(spec), "unit": "token"}
    described: dict[str, Descriptor] = {"max_tokens": limit, **_sampling(spec)}
    for feature, parameters in _BY_FEATURE.items():
        if feature in spec.features:
            described.update(parameters)
    return described


def supported_parameters(spec: ModelSpec) -> list[str]:
    """Their names, sorted, as OpenRouter's public list of models has them."""
    names = {name for output in spec.output_modalities for name in descriptors(spec, output)}
    return sorted(names)


def sampling_parameters(spec: ModelSpec) -> list[str]:
    """Those of the older provider format, which counts `max_tokens` among them."""
    return ["max_tokens", *_sampling(spec)] if "text" in spec.output_modalities else []


def legacy_features(spec: ModelSpec) -> list[str]:
    """What the older provider format calls features."""
    return [feature for feature in _LEGACY_FEATURES if feature in spec.features]


def max_output_tokens(spec: ModelSpec) -> int:
    """Most completion tokens of one choice: what is configured, or else what fits."""
    return spec.max_output_tokens or spec.max_model_len


def _sampling(spec: ModelSpec) -> dict[str, Descriptor]:
    return {name: _SAMPLING[name] for name in _SAMPLING if name not in spec.unsupported_params}

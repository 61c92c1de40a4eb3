"""`GET /v1/models`: OpenAI's list, with limits and prices beside the standard fields."""

from collections.abc import Iterable
from typing import Any

from provider_core.dialects.pricing import flat_pricing
from provider_core.types import ModelSpec


def model_list(specs: Iterable[ModelSpec]) -> dict[str, Any]:
    """The list object over all models."""
    return {"object": "list", "data": [model_item(spec) for spec in specs]}


def model_item(spec: ModelSpec) -> dict[str, Any]:
    """One model; `spec` has its limits filled in."""
    item = {
        "id": spec.id,
        "object": "model",
        "created": spec.created,
        "owned_by": spec.owned_by,
        "name": spec.name or spec.id,
        "description": spec.description,
        "context_length": spec.max_model_len,
        "max_model_len": spec.max_model_len,  # vLLM's name of the same limit
        "max_output_tokens": spec.max_output_tokens or spec.max_model_len,
        "pricing": flat_pricing(spec.prices),
    }
    if spec.quantization is not None:
        item["quantization"] = spec.quantization
    return item

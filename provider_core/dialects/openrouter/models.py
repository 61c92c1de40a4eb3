"""The models as OpenRouter's own clients read them, under `/api/v1`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from provider_core.dialects.openrouter.parameters import max_output_tokens, supported_parameters
from provider_core.dialects.pricing import flat_pricing
from provider_core.dialects.validation import bad_value
from provider_core.settings import ProviderSettings
from provider_core.types import ModelSpec

BASE = "/api/v1"
DEFAULT_LIMIT = 500
MAX_LIMIT = 1000

_SORTS: Mapping[str, Callable[[ModelSpec], Any]] = {
    "newest": lambda spec: -spec.created,
    "pricing-low-to-high": lambda spec: spec.prices.prompt + spec.prices.completion,
    "pricing-high-to-low": lambda spec: -spec.prices.prompt - spec.prices.completion,
    "context-high-to-low": lambda spec: -spec.max_model_len,
}


def model_object(spec: ModelSpec) -> dict[str, Any]:
    """One model; `spec` has its limits filled in."""
    model: dict[str, Any] = {
        "id": spec.id,
        "canonical_slug": spec.openrouter_slug or spec.id,
        "hugging_face_id": spec.hugging_face_id or None,
        "name": spec.name or spec.id,
        "created": spec.created,
        "description": spec.description,
        "context_length": spec.max_model_len,
        "architecture": _architecture(spec),
        "pricing": _pricing(spec),
        "top_provider": {
            "context_length": spec.max_model_len,
            "max_completion_tokens": max_output_tokens(spec),
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": supported_parameters(spec),
        "default_parameters": None,
        "supported_voices": None,
        "knowledge_cutoff": spec.knowledge_cutoff,
        "expiration_date": spec.deprecation_date and spec.deprecation_date[:10],
        "links": {"details": f"{BASE}/models/{quote(spec.id)}/endpoints"},
    }
    if "reasoning" in spec.features:
        model["reasoning"] = {"mandatory": False}
    return model


def model_page(specs: Sequence[ModelSpec], query: Mapping[str, str]) -> dict[str, Any]:
    """The list, filtered, sorted and cut as the query asks.

    `supported_parameters` names those that a model must have, `output_modalities` and
    `input_modalities` those of which it must have one, `context` the least context length, `q` a
    part of its id or name. Other filters are OpenRouter's own and change nothing.

    Raises:
        InvalidRequest: `offset`, `limit` or `context` is no number in its range.
    """
    offset = _number(query, "offset", 0, minimum=0)
    limit = _number(query, "limit", DEFAULT_LIMIT, minimum=1, maximum=MAX_LIMIT)
    found = _sorted(_filtered(specs, query), query.get("sort"))
    following = offset + limit
    next_link = None
    if following < len(found):
        parameters = {**query, "offset": following, "limit": limit}
        next_link = f"{BASE}/models?{urlencode(parameters)}"
    return {
        "data": [model_object(spec) for spec in found[offset:following]],
        "total_count": len(found),
        "links": {"next": next_link},
    }


def model_count(specs: Sequence[ModelSpec], query: Mapping[str, str]) -> dict[str, Any]:
    """How many there are, filtered as `model_page` does.

    Raises:
        InvalidRequest: `context` is no number in its range.
    """
    return {"data": {"count": len(_filtered(specs, query))}}


def model_endpoints(spec: ModelSpec, provider: ProviderSettings) -> dict[str, Any]:
    """One model with where it is served: here, or nowhere while it is not ready."""
    endpoint = {
        "name": f"{provider.name} | {spec.id}",
        "model_id": spec.id,
        "model_name": spec.name or spec.id,
        "context_length": spec.max_model_len,
        "pricing": _pricing(spec),
        "provider_name": provider.name,
        "tag": provider.slug,
        "quantization": spec.quantization,
        "max_completion_tokens": max_output_tokens(spec),
        "max_prompt_tokens": None,
        "supported_parameters": supported_parameters(spec),
        "status": 0,
        "uptime_last_5m": None,  # a marketplace measures these, not the measured
        "uptime_last_30m": None,
        "uptime_last_1d": None,
        "latency_last_30m": None,
        "throughput_last_30m": None,
        "supports_implicit_caching": spec.prefix_cache_mib > 0,
    }
    return {
        "data": {
            "id": spec.id,
            "name": spec.name or spec.id,
            "created": spec.created,
            "description": spec.description,
            "architecture": _architecture(spec),
            "endpoints": [endpoint] if spec.is_ready else [],
        }
    }


def provider_list(provider: ProviderSettings, countries: Sequence[str]) -> dict[str, Any]:
    """The providers: this one."""
    return {
        "data": [
            {
                "name": provider.name,
                "slug": provider.slug,
                "privacy_policy_url": provider.privacy_policy_url,
                "terms_of_service_url": provider.terms_of_service_url,
                "status_page_url": provider.status_page_url,
                "headquarters": provider.headquarters,
                "datacenters": list(countries) or None,
            }
        ]
    }


def _architecture(spec: ModelSpec) -> dict[str, Any]:
    inputs, outputs = spec.input_modalities, spec.output_modalities
    return {
        "modality": f"{'+'.join(inputs)}->{'+'.join(outputs)}",
        "input_modalities": list(inputs),
        "output_modalities": list(outputs),
        "tokenizer": spec.tokenizer or "Other",
        "instruct_type": None,
    }


def _pricing(spec: ModelSpec) -> dict[str, Any]:
    pricing = flat_pricing(spec.prices)
    if spec.discount_to_user is not None:
        pricing["discount"] = spec.discount_to_user
    return pricing


def _filtered(specs: Iterable[ModelSpec], query: Mapping[str, str]) -> list[ModelSpec]:
    parameters = _names(query, "supported_parameters")
    outputs, inputs = _names(query, "output_modalities"), _names(query, "input_modalities")
    context = _number(query, "context", 1, minimum=1)
    text = query.get("q", "").lower()
    return [
        spec
        for spec in specs
        if parameters <= set(supported_parameters(spec))
        and (not outputs - {"all"} or outputs & {*spec.output_modalities, "all"})
        and (not inputs or inputs & set(spec.input_modalities))
        and spec.max_model_len >= context
        and (text in spec.id.lower() or text in spec.name.lower())
    ]


def _sorted(specs: list[ModelSpec], order: str | None) -> list[ModelSpec]:
    key = _SORTS.get(order or "")
    return specs if key is None else sorted(specs, key=key)


def _names(query: Mapping[str, str], name: str) -> set[str]:
    return {part.strip() for part in query.get(name, "").split(",") if part.strip()}


def _number(
    query: Mapping[str, str], name: str, default: int, *, minimum: int, maximum: int = 2**31
) -> int:
    text = query.get(name)
    if text is None:
        return default
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else -1
    if not minimum <= number <= maximum:
        raise bad_value(name, f"must be an integer from {minimum} to {maximum}")
    return number

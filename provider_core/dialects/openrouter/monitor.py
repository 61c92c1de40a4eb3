"""`GET /openrouter/models`: the documents that OpenRouter's provider monitor lists models from.

Two forms of the same facts: schema 2.4, which forbids every property it does not know, and the
flat one before it. What is not configured is not said; what is not billed has no price.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from provider_core.dialects.openrouter.parameters import (
    descriptors,
    legacy_features,
    max_output_tokens,
    sampling_parameters,
)
from provider_core.dialects.pricing import flat_pricing, price_string
from provider_core.prices import Prices
from provider_core.settings import ImageSettings, ProviderSettings
from provider_core.types import ModelSpec

SCHEMA_VERSION = "2.4"

_PRICE_OF: Mapping[str, Callable[[Prices], Decimal]] = {
    "prompt": lambda prices: prices.prompt,
    "cached_prompt": lambda prices: _or(prices.input_cache_read, prices.prompt),
    "completion": lambda prices: prices.completion,
    "internal_reasoning": lambda prices: _or(prices.internal_reasoning, prices.completion),
    "image": lambda prices: prices.image,
    "request": lambda prices: prices.request,
}
_IMAGE_FORMATS = ("image/png", "image/jpeg", "image/webp", "image/gif")
_NO_STREAM = {"embeddings", "rerank"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where requests are served.

    Attributes:
        country: ISO 3166-1 alpha-2.
        region: The provider's own id of it.
    """

    country: str
    region: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedBy:
    """Who lists models, where they run, and which images they take."""

    provider: ProviderSettings
    places: tuple[Place, ...] = ()
    images: ImageSettings = field(default_factory=ImageSettings)


def monitor_list(specs: Iterable[ModelSpec], by: ListedBy) -> dict[str, Any]:
    """The whole answer in schema 2.4."""
    return {"data": [model_document(spec, by) for spec in specs]}


def legacy_list(specs: Iterable[ModelSpec], by: ListedBy) -> dict[str, Any]:
    """The whole answer in the flat form."""
    return {"data": [legacy_document(spec, by) for spec in specs]}


def model_document(spec: ModelSpec, by: ListedBy) -> dict[str, Any]:
    """One model in schema 2.4; `spec` has its limits filled in."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "id": spec.id,
        "name": spec.name or spec.id,
        "hugging_face_id": spec.hugging_face_id,
        "quantization": spec.quantization,
        "input_modalities": [_input(spec, kind, by) for kind in spec.input_modalities],
        "output_modalities": [_output(spec, kind) for kind in spec.output_modalities],
        **_operational(spec),
    }
    if spec.tokenizer is not None:
        document["tokenizer"] = spec.tokenizer
    if price := _price(spec, "request"):
        document["pricing"] = price
    if capacity := _request_capacity(spec):
        document["capacity"] = capacity
    if by.places:
        document["datacenters"] = [_datacenter(place) for place in by.places]
    if compliance := _compliance(by.provider):
        document["compliance"] = compliance
    return document


def legacy_document(spec: ModelSpec, by: ListedBy) -> dict[str, Any]:
    """One model in the flat form; `spec` has its limits filled in."""
    document: dict[str, Any] = {
        "id": spec.id,
        "hugging_face_id": spec.hugging_face_id,
        "name": spec.name or spec.id,
        "created": spec.created,
        "input_modalities": list(spec.input_modalities),
        "output_modalities": list(spec.output_modalities),
        "quantization": spec.quantization,
        "context_length": spec.max_model_len,
        "max_output_length": max_output_tokens(spec),
        "pricing": flat_pricing(spec.prices),
        "supported_sampling_parameters": sampling_parameters(spec),
        "supported_features": legacy_features(spec),
        **_operational(spec),
    }
    if spec.capacity.prompt_tokens_per_minute is not None:
        document["capacity_tpm"] = spec.capacity.prompt_tokens_per_minute
    if by.places:
        document["datacenters"] = [{"country_code": place.country} for place in by.places]
    return document


def _operational(spec: ModelSpec) -> dict[str, Any]:
    """What both forms say alike."""
    said: dict[str, Any] = {"is_ready": spec.is_ready}
    if spec.created:
        said["created"] = spec.created
    if spec.description:
        said["description"] = spec.description
    if spec.deprecation_date is not None:
        said["deprecation_date"] = spec.deprecation_date
    if spec.is_free is not None:
        said["is_free"] = spec.is_free
    if spec.discount_to_user is not None:
        said["discount_to_user"] = spec.discount_to_user
    if spec.openrouter_slug is not None:
        said["openrouter"] = {"slug": spec.openrouter_slug}
    return said


def _input(spec: ModelSpec, kind: str, by: ListedBy) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": kind}
    if kind == "image":
        entry["supported_inputs"] = _image_inputs(by.images)
        if price := _price(spec, "image", type="prompt", unit="image"):
            entry["pricing"] = price
        return entry
    if kind != "text":
        return entry
    entry["supported_inputs"] = {
        "max_context_length": {"value": spec.max_model_len, "unit": "token"}
    }
    prices = _price(spec, "prompt")
    if _is_set(spec.prices, "input_cache_read"):
        prices += _price(spec, "cached_prompt", implicit=True, shows_free=True)
    if prices:
        entry["pricing"] = prices
    if spec.capacity.prompt_tokens_per_minute is not None:
        entry["capacity"] = [_per_minute("prompt", spec.capacity.prompt_tokens_per_minute)]
    return entry


def _image_inputs(images: ImageSettings) -> dict[str, Any]:
    sources = ["url", "base64"] if images.fetch else ["base64"]
    return {
        "sources": {"type": "enum", "values": sources},
        "formats": {"type": "enum", "values": list(_IMAGE_FORMATS)},
        "references": {"type": "integer", "min": 0, "max": images.max_images},
        "max_content_size_bytes": {"value": images.max_bytes, "unit": "byte"},
    }


def _output(spec: ModelSpec, kind: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": kind, "supported_parameters": descriptors(spec, kind)}
    if kind not in _NO_STREAM:
        entry["streaming"] = True
    if kind != "text":
        return entry
    entry["max_length"] = {"value": max_output_tokens(spec), "unit": "token"}
    prices = _price(spec, "completion")
    if "reasoning" in spec.features and _is_set(spec.prices, "internal_reasoning"):
        prices += _price(spec, "internal_reasoning", shows_free=True)
    if prices:
        entry["pricing"] = prices
    if spec.capacity.completion_tokens_per_minute is not None:
        entry["capacity"] = [_per_minute("completion", spec.capacity.completion_tokens_per_minute)]
    return entry


def _price(
    spec: ModelSpec,
    name: str,
    *,
    shows_free: bool = False,
    **qualifiers: Any,  # of the entry: `type`, `unit`, `implicit`
) -> list[dict[str, Any]]:
    """The entries of one thing that is billed: the base price and that of each window.

    Nothing if it is never billed, unless a price of 0 is worth saying. Tiers are overrides of the
    base price; of those that match, the last counts.
    """
    of = _PRICE_OF[name]
    prices = spec.prices
    exceptional = [tier.prices for tier in prices.tiers] + [w.prices for w in prices.windows]
    if not shows_free and not any(of(each) for each in (prices, *exceptional)):
        return []
    unit = "request" if name == "request" else "token"
    head = {"type": name, "unit": unit, **qualifiers}
    base: dict[str, Any] = {**head, "cost_usd": price_string(of(prices))}
    overrides = []
    before = of(prices)
    for tier in prices.tiers:
        price = of(tier.prices)
        if price != before:
            when = {"prompt_tokens": {"gte": tier.min_prompt_tokens}}
            overrides.append({"when": when, "cost_usd": price_string(price)})
        before = price
    if overrides:
        base["overrides"] = overrides
    return [base] + [
        {
            **head,
            "cost_usd": price_string(of(window.prices)),
            "utc_start": window.utc_start,
            "utc_end": window.utc_end,
        }
        for window in prices.windows
        if of(window.prices) != of(prices)
    ]


def _request_capacity(spec: ModelSpec) -> list[dict[str, Any]]:
    capacity = spec.capacity
    windows = {"minute": capacity.requests_per_minute, "day": capacity.requests_per_day}
    entries: list[dict[str, Any]] = [
        {"type": "request", "unit": "request", "per": per, "value": value}
        for per, value in windows.items()
        if value is not None
    ]
    concurrent = capacity.concurrent_requests or spec.max_num_seqs
    return [*entries, {"type": "concurrency", "unit": "request", "value": concurrent}]


def _per_minute(kind: str, num_tokens: int) -> dict[str, Any]:
    return {"type": kind, "unit": "token", "per": "minute", "value": num_tokens}


def _datacenter(place: Place) -> dict[str, str]:
    entry = {"country_code": place.country}
    return entry if place.region is None else {**entry, "region": place.region}


def _compliance(provider: ProviderSettings) -> dict[str, bool]:
    """Certifications that are held, and zero data retention if the configuration says so."""
    held = {name.lower(): True for name in provider.certifications}
    collects = provider.collects_data
    return held if collects is None else {"zdr": not collects, **held}


def _is_set(prices: Prices, name: str) -> bool:
    """Whether a price that has a default was set, in the base price or in an exceptional one."""
    exceptional = [tier.prices for tier in prices.tiers] + [w.prices for w in prices.windows]
    return any(getattr(each, name) is not None for each in (prices, *exceptional))


def _or(price: Decimal | None, default: Decimal) -> Decimal:
    return default if price is None else price

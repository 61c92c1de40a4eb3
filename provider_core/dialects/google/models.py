"""`GET /v1beta/models`: Google's list, page by page."""

from collections.abc import Mapping, Sequence
from typing import Any

from provider_core.dialects.validation import bad_value
from provider_core.types import ModelSpec

DEFAULT_PAGE = 50
MAX_PAGE = 1000

_PREFIX = "models/"
_GENERATES = ("generateContent", "streamGenerateContent", "countTokens")
_EMBEDS = ("embedContent", "batchEmbedContents")


def model_list(specs: Sequence[ModelSpec], query: Mapping[str, str]) -> dict[str, Any]:
    """One page.

    Args:
        specs: All models, in the order of the list.
        query: `pageSize` and `pageToken`, which is the place of the page's first model.

    Raises:
        InvalidRequest: One of them is malformed.
    """
    size = _number(query.get("pageSize"), "pageSize") or DEFAULT_PAGE
    begin = _number(query.get("pageToken"), "pageToken") or 0
    end = begin + min(size, MAX_PAGE)
    page: dict[str, Any] = {"models": [model_object(spec) for spec in specs[begin:end]]}
    if end < len(specs):
        page["nextPageToken"] = str(end)
    return page


def model_object(spec: ModelSpec) -> dict[str, Any]:
    """One model; `spec` has its limits filled in."""
    embeds = "embeddings" in spec.output_modalities
    return {
        "name": _PREFIX + spec.id,
        "version": "001",
        "displayName": spec.name or spec.id,
        "description": spec.description,
        "inputTokenLimit": spec.max_model_len,
        "outputTokenLimit": spec.max_output_tokens or spec.max_model_len,
        "supportedGenerationMethods": list(_EMBEDS if embeds else _GENERATES),
        "temperature": 1.0,
        "maxTemperature": 2.0,
        "topP": 1.0,
        "thinking": "reasoning" in spec.features,
    }


def model_id(name: str) -> str:
    """A model's id by its resource name, which begins with `models/`, or the id itself."""
    return name.removeprefix(_PREFIX)


def _number(value: str | None, param: str) -> int | None:
    if not value:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) <= 9):
        raise bad_value(param, "must be a whole number")
    return int(value)

"""`GET /v1/models` for Anthropic's clients: a page of models and where to go on."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from provider_core.dialects.validation import bad_value
from provider_core.types import ModelSpec

DEFAULT_PAGE = 20
MAX_PAGE = 1000


def model_page(specs: Sequence[ModelSpec], query: Mapping[str, str]) -> dict[str, Any]:
    """One page.

    Args:
        specs: All models, in the order of the list.
        query: `limit`, and `after_id` or `before_id`.

    Raises:
        InvalidRequest: `limit` is out of range, or an id is not listed.
    """
    limit = _limit(query.get("limit"))
    ids = [spec.id for spec in specs]
    after, before = query.get("after_id"), query.get("before_id")
    begin = 0 if after is None else _place(ids, after, "after_id") + 1
    end = len(ids) if before is None else _place(ids, before, "before_id")
    if before is not None and after is None:
        page = range(max(end - limit, 0), end)
        has_more = page.start > 0
    else:
        page = range(begin, min(begin + limit, end))
        has_more = page.stop < end
    data = [model_info(specs[index]) for index in page]
    return {
        "data": data,
        "has_more": has_more,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def model_info(spec: ModelSpec) -> dict[str, Any]:
    """One model; `spec` has its limits filled in."""
    created = datetime.fromtimestamp(spec.created, UTC)
    return {
        "type": "model",
        "id": spec.id,
        "display_name": spec.name or spec.id,
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "lifecycle": "active" if spec.deprecation_date is None else "deprecated",
        "max_input_tokens": spec.max_model_len,
        "max_tokens": spec.max_output_tokens or spec.max_model_len,
    }


def _limit(value: str | None) -> int:
    if value is None:
        return DEFAULT_PAGE
    is_number = value.isascii() and value.isdecimal() and len(value) <= 4
    if not (is_number and 1 <= int(value) <= MAX_PAGE):
        raise bad_value("limit", f"must be an integer from 1 to {MAX_PAGE}")
    return int(value)


def _place(ids: Sequence[str], model_id: str, param: str) -> int:
    if model_id not in ids:
        raise bad_value(param, "must be the id of a listed model")
    return ids.index(model_id)

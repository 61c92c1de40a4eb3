"""What a key may know of itself: its generations, what it has spent, day by day.

Amounts are JSON numbers that keep every digit of the exact decimal.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from provider_core.billing.ledger_rows import Activity, Generation, Spending
from provider_core.dialects.openrouter.spending import limit_fields, number, usage_fields
from provider_core.json_lines import format_timestamp
from provider_core.types import Principal

_API_TYPES = {"embeddings": "embeddings", "rerank": "rerank"}  # all others are completions
_UNLIMITED = {"requests": -1, "interval": "10s", "note": "not enforced by this field"}


def generation_object(generation: Generation, provider_name: str) -> dict[str, Any]:
    """The answer of `GET /generation`. Tokens are always the model's own."""
    fields = generation.fields
    cost = number(generation.cost)
    received_s = fields["finished_s"] - fields["latency_ms"] / 1000
    return {
        "data": {
            "id": fields["generation_id"],
            "upstream_id": None,
            "request_id": fields["request_id"],
            "model": fields["model"],
            "provider_name": provider_name,
            "created_at": format_timestamp(received_s),
            "api_type": _API_TYPES.get(fields["endpoint"], "completions"),
            "streamed": bool(fields["stream"]),
            "cancelled": bool(fields["cancelled"]),
            "finish_reason": fields["finish_reason"],
            "native_finish_reason": fields["native_finish_reason"],
            "tokens_prompt": fields["prompt_tokens"],
            "tokens_completion": fields["completion_tokens"],
            "native_tokens_prompt": fields["prompt_tokens"],
            "native_tokens_completion": fields["completion_tokens"],
            "native_tokens_completion_images": None,
            "native_tokens_reasoning": fields["reasoning_tokens"],
            "native_tokens_cached": fields["cached_tokens"],
            "num_media_prompt": fields["image_count"] or None,
            "num_input_audio_prompt": None,
            "num_media_completion": None,
            "num_search_results": None,
            "num_fetches": None,
            "web_search_engine": None,
            "usage": cost,
            "total_cost": cost,
            "upstream_inference_cost": None,
            "cache_discount": None,
            "is_byok": False,
            "latency": fields["ttft_ms"],  # milliseconds to the first token
            "generation_time": fields["generation_ms"],
            "moderation_latency": None,
            "origin": fields["app_referer"] or "",
            "http_referer": fields["app_referer"],
            "user_agent": None,
            "app_id": None,
            "external_user": fields["user_id"],
            "session_id": fields["session_id"],
            "response_cache_source_id": fields["response_cache_source_id"],
            "service_tier": None,
            "preset_id": None,
            "router": None,
            "provider_responses": None,
            "data_region": "global",
            "workspace_id": None,
        }
    }


def key_object(principal: Principal, spending: Spending) -> dict[str, Any]:
    """The answer of `GET /key`."""
    is_management = principal.scope == "management"
    return {
        "data": {
            "label": principal.label or principal.api_key_id,
            **limit_fields(principal.spend_limit, spending),
            **usage_fields(spending),
            "is_free_tier": False,
            "is_management_key": is_management,
            "is_provisioning_key": is_management,
            "creator_user_id": principal.account_id,
            "expires_at": principal.expires_at,
            "rate_limit": _UNLIMITED,  # deprecated, and their libraries insist on it
        }
    }


def credits_object(bought: Decimal, used: Decimal) -> dict[str, Any]:
    """The answer of `GET /credits`: USD bought in advance, and used."""
    return {"data": {"total_credits": number(bought), "total_usage": number(used)}}


def activity_list(days: Iterable[Activity], provider_name: str) -> dict[str, Any]:
    """The answer of `GET /activity`."""
    return {
        "data": [
            {
                "date": day.day,
                "model": day.model,
                "model_permaslug": day.model,
                "endpoint_id": day.model,
                "provider_name": provider_name,
                "usage": number(day.cost),
                "byok_usage_inference": 0,
                "requests": day.requests,
                "prompt_tokens": day.prompt_tokens,
                "completion_tokens": day.completion_tokens,
                "reasoning_tokens": day.reasoning_tokens,
            }
            for day in days
        ]
    }

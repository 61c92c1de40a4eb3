"""The `usage` object, the same in whole replies and in streams."""

from typing import Any

import orjson

from provider_core.types import Usage


def usage_object(usage: Usage, *, cost: str | None = None) -> dict[str, Any]:
    """Token counts as OpenAI nests them; every count is always an integer.

    Args:
        usage: What the generation used.
        cost: USD as plain decimal digits, sent as a number that keeps every one of them; for
            `/api/v1` only.
    """
    counts: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
    if cost is not None:
        counts["cost"] = orjson.Fragment(cost)
    return counts

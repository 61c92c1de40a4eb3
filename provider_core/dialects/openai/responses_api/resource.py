"""The response object: what it says before, during and after a generation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Any, Literal

import orjson

from provider_core.dialects.openai.errors import error_object
from provider_core.errors import InvalidRequest, RateLimited
from provider_core.text.events import Finished
from provider_core.types import Usage

Status = Literal["in_progress", "completed", "incomplete", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """What is known of a response before it begins.

    Attributes:
        response_id: The generation's id.
        created_at: Unix seconds.
        model: As the client asked for it.
        echo: What the request said, as the object repeats it.
        openrouter: Speak the `/api/v1` variant, whose usage has the cost.
        clock: Tells Unix seconds.
    """

    response_id: str
    created_at: int
    model: str
    echo: Mapping[str, Any]
    openrouter: bool = False
    clock: Callable[[], float] = time

    def response(
        self,
        status: Status = "in_progress",
        output: Sequence[dict[str, Any]] = (),
        *,
        usage: Usage | None = None,
        cost: str | None = None,
        error: BaseException | None = None,
    ) -> dict[str, Any]:
        """The object at some moment.

        Args:
            status: How far it has come; `failed` is because of `error`.
            output: Its items so far.
            usage: The final counts, once known.
            cost: USD as decimal digits; told under `/api/v1` only.
            error: Of a `ProviderError` the message is shown, of anything else nothing.
        """
        is_cut = status == "incomplete"
        return {
            "id": self.response_id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": int(self.clock()) if status == "completed" else None,
            "status": status,
            "error": _failure(error) if status == "failed" else None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "model": self.model,
            "output": list(output),
            **self.echo,
            "usage": None if usage is None else self._usage(usage, cost),
        }

    def _usage(self, usage: Usage, cost: str | None) -> dict[str, Any]:
        counts: dict[str, Any] = {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": usage.cached_tokens,
                "cache_write_tokens": 0,
            },
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.total_tokens,
        }
        if self.openrouter and cost is not None:
            counts["cost"] = orjson.Fragment(cost)
        return counts


def final_status(finished: Finished | None) -> Status:
    """The status that a choice's end gives its response; one without an end has failed."""
    if finished is None or finished.finish_reason in {"error", "abort"}:
        return "failed"
    return "incomplete" if finished.finish_reason == "length" else "completed"


def _failure(error: BaseException | None) -> dict[str, Any]:
    """The error in the few codes that this object has."""
    code = "server_error"
    if isinstance(error, RateLimited):
        code = "rate_limit_exceeded"
    elif isinstance(error, InvalidRequest):
        code = "invalid_prompt"
    return {"code": code, "message": error_object(error)["message"]}

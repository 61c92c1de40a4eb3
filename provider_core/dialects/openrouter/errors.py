"""Errors as OpenRouter's clients read them: under `/api/v1`.

`code` is the HTTP status as an integer, which their libraries insist on; the kind of the error is
`metadata.error_type`, from a vocabulary that is documented with them. An unknown model is a 400
there, and an empty account a 402. Where a model cannot be had, `availability` says why and whether
asking again makes sense.
"""

from typing import Any

import orjson

from provider_core.dialects.failures import INTERNAL_MESSAGE, error_headers, is_out_of_credit
from provider_core.dialects.validation import MAX_ECHO
from provider_core.errors import (
    ModelNotFound,
    NoEndpoints,
    Overloaded,
    ProviderError,
    Unavailable,
)

DOCUMENTATION_URL = "https://openrouter.ai/docs/api/reference/errors-and-debugging"

# Codes of ours that are words of the vocabulary.
_ERROR_TYPES = frozenset(
    {
        "context_length_exceeded",
        "max_tokens_exceeded",
        "token_limit_exceeded",
        "string_too_long",
        "invalid_prompt",
        "content_policy_violation",
        "refusal",
        "invalid_image",
        "image_too_large",
        "image_too_small",
        "unsupported_image_format",
        "image_download_failed",
        "image_not_found",
    }
)
_ERROR_TYPE_BY_STATUS = {
    400: "invalid_request",
    401: "authentication",
    402: "payment_required",
    403: "permission_denied",
    404: "not_found",
    408: "timeout",
    412: "precondition_failed",
    413: "payload_too_large",
    422: "unprocessable",
    429: "rate_limit_exceeded",
    500: "server",
    502: "provider_unavailable",
    503: "provider_overloaded",
    504: "timeout",
}


def error_object(error: BaseException | None) -> dict[str, Any]:
    """The object under `error`. Anything but a `ProviderError` is an internal error."""
    if not isinstance(error, ProviderError) or error.status == 500:
        return {"code": 500, "message": INTERNAL_MESSAGE, "metadata": {"error_type": "server"}}
    status = _status(error)
    metadata: dict[str, str] = {"error_type": _error_type(error, status)}
    if error.code is not None:
        metadata["provider_code"] = error.code
    if error.param is not None:
        metadata["param"] = error.param
    shown: dict[str, Any] = {"code": status, "message": error.message, "metadata": metadata}
    availability = _availability(error)
    if availability is not None:
        shown["availability"] = availability
    return shown


def error_type(error: BaseException | None) -> str:
    """The kind of an error, in the documented vocabulary."""
    kind: str = error_object(error)["metadata"]["error_type"]
    return kind


def encode_error(error: ProviderError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """A whole error response.

    Returns:
        Status, headers and body.
    """
    body = orjson.dumps({"error": error_object(error)})
    return _status(error), error_headers(error, request_id), body


def _status(error: ProviderError) -> int:
    if isinstance(error, ModelNotFound):
        return 400
    return 402 if is_out_of_credit(error) else error.status


def _error_type(error: ProviderError, status: int) -> str:
    if error.code in _ERROR_TYPES:
        return error.code
    if status == 400 and (error.param or "").startswith("messages["):
        return "invalid_prompt"  # one of the messages is at fault
    return _ERROR_TYPE_BY_STATUS.get(status, "invalid_request" if status < 500 else "unmapped")


def _availability(error: ProviderError) -> dict[str, Any] | None:
    """Why a model cannot be had; `None` if that is not what is wrong."""
    match error:
        case ModelNotFound():
            code, is_retryable = "model_not_found", False
        case NoEndpoints():
            code, is_retryable = error.code or "no_endpoints", False
        case Overloaded():
            code, is_retryable = "capacity_exhausted", True
        case Unavailable():
            code, is_retryable = "temporarily_unavailable", True
        case _:
            return None
    found: dict[str, Any] = {
        "code": code,
        "retryable": is_retryable,
        "requested_models": [name[:MAX_ECHO] for name in error.models],
        "docs_url": f"{DOCUMENTATION_URL}#{code}",
    }
    if error.retry_after_s is not None:
        found["retry_after"] = error.retry_after_s
    if isinstance(error, NoEndpoints):
        if error.excluded_by is not None:
            found["excluded_by"] = [error.excluded_by]
        if code == "constraint_filtered" and error.param is not None:
            found["constraint"] = {"field": error.param, "detail": error.message}
    return found

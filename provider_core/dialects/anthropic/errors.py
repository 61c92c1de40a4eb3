"""Errors as Anthropic's clients read them.

Outages that are 503 elsewhere are Anthropic's own 529; an overload that a retry solves is 429 in
every dialect. An empty account is a 402.
"""

from typing import Any

import orjson

from provider_core.dialects.failures import (
    INTERNAL_MESSAGE,
    error_headers,
    is_out_of_credit,
    named_message,
)
from provider_core.errors import ContextLengthExceeded, ProviderError

_TYPE_BY_STATUS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_body(error: BaseException | None, request_id: str) -> dict[str, Any]:
    """The whole body. Anything but a `ProviderError` is an internal error, its text kept inside."""
    error_type, message = "api_error", INTERNAL_MESSAGE
    if isinstance(error, ProviderError):
        status = _status(error)
        error_type = _TYPE_BY_STATUS.get(
            status, "invalid_request_error" if status < 500 else "api_error"
        )
        message = named_message(error)
        if isinstance(error, ContextLengthExceeded):  # the words that clients look for
            message = f"prompt is too long: {error.message}"
    return {
        "type": "error",
        "error": {"type": error_type, "message": message},
        "request_id": request_id,
    }


def encode_error(error: ProviderError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """A whole error response.

    Returns:
        Status, headers and body.
    """
    headers = {**error_headers(error, request_id), "request-id": request_id}
    return _status(error), headers, orjson.dumps(error_body(error, request_id))


def _status(error: ProviderError) -> int:
    if is_out_of_credit(error):
        return 402
    return 529 if error.status == 503 else error.status

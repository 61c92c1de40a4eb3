"""Errors as Google's clients read them: a code that is the HTTP status, and a canonical name.

`error` is the first key, by which the Python library tells a failure in a stream from an answer.
"""

import math
from typing import Any

import orjson

from provider_core.dialects.failures import (
    INTERNAL_MESSAGE,
    error_headers,
    is_out_of_credit,
    named_message,
)
from provider_core.errors import AuthenticationFailed, ProviderError

_NAME_BY_STATUS = {
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_FIELD_BY_PARAM = {  # what the server names in the words of another dialect
    "messages": "contents",
    "response_format": "generationConfig.responseSchema",
    "max_tokens": "generationConfig.maxOutputTokens",
    "tool_choice": "toolConfig",
}
_RPC = "type.googleapis.com/google.rpc."


def error_body(error: BaseException | None) -> dict[str, Any]:
    """The whole body. Anything but a `ProviderError` is an internal error, its text kept inside."""
    if not isinstance(error, ProviderError):
        return {"error": {"code": 500, "message": INTERNAL_MESSAGE, "status": "INTERNAL"}}
    status = _status(error)
    name = _NAME_BY_STATUS.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
    value: dict[str, Any] = {"code": status, "message": named_message(error), "status": name}
    if details := _details(error):
        value["details"] = details
    return {"error": value}


def encode_error(error: ProviderError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """A whole error response.

    Returns:
        Status, headers and body.
    """
    return _status(error), error_headers(error, request_id), orjson.dumps(error_body(error))


def _status(error: ProviderError) -> int:
    return 402 if is_out_of_credit(error) else error.status


def _details(error: ProviderError) -> list[dict[str, Any]]:
    if isinstance(error, AuthenticationFailed):
        return [
            {
                "@type": _RPC + "ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
            }
        ]
    if error.retry_after_s is not None:
        delay = f"{math.ceil(error.retry_after_s)}s"
        return [{"@type": _RPC + "RetryInfo", "retryDelay": delay}]
    if error.param is not None:
        field = _FIELD_BY_PARAM.get(error.param, error.param)
        violation = {"field": field, "description": error.message}
        return [{"@type": _RPC + "BadRequest", "fieldViolations": [violation]}]
    return []

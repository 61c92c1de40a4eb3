"""Errors as OpenRouter's clients read them: under `/api/v1`.

`code` is the HTTP status as an integer, which their libraries insist on; the kind of the error is
`metadata.error_type`. An unknown model is a 400 there, and an empty account a 402.
"""

from typing import Any

import orjson

from provider_core.dialects.failures import INTERNAL_MESSAGE, error_headers, is_out_of_credit
from provider_core.errors import ModelNotFound, ProviderError

_ERROR_TYPE_BY_CODE = {
    "context_length_exceeded": "context_length_exceeded",
    "content_policy_violation": "content_policy_violation",
}
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
    if not isinstance(error, ProviderError):
        return {"code": 500, "message": INTERNAL_MESSAGE, "metadata": {"error_type": "server"}}
    status = _status(error)
    metadata: dict[str, str] = {"error_type": _error_type(error, status)}
    if error.code is not None:
        metadata["provider_code"] = error.code
    if error.param is not None:
        metadata["param"] = error.param
    return {"code": status, "message": error.message, "metadata": metadata}


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
    by_code = _ERROR_TYPE_BY_CODE.get(error.code or "")
    if by_code is not None:
        return by_code
    return _ERROR_TYPE_BY_STATUS.get(status, "invalid_request" if status < 500 else "unmapped")

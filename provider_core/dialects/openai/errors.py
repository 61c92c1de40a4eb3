"""Errors as OpenAI's clients read them: under `/v1`.

The body always has the four keys of OpenAI's `Error`; `code` is a string or null, never the HTTP
status. Where a status, type or code differs from the error's own class, the table here says so.
"""

from typing import Any

import orjson

from provider_core.dialects.failures import INTERNAL_MESSAGE, error_headers, is_out_of_credit
from provider_core.errors import AuthenticationFailed, ModelNotFound, ProviderError

# OpenAI's type says which rate is limited: type, param, code.
_RATE_LIMIT_BY_CODE = {
    "requests_per_minute": ("requests", None, "rate_limit_exceeded"),
    "requests_per_day": ("requests", None, "rate_limit_exceeded"),
    "tokens_per_minute": ("tokens", None, "rate_limit_exceeded"),
    "prompt_over_rate_limit": ("tokens", None, "rate_limit_exceeded"),
}

_WRONG_KEY = "Incorrect API key provided"  # the words by which clients tell it from a wrong request


def error_object(error: BaseException | None) -> dict[str, Any]:
    """The object under `error`: message, type, param and code, all four always present.

    Anything but a `ProviderError` is an internal error; its text stays inside.
    """
    if not isinstance(error, ProviderError):
        return _object(INTERNAL_MESSAGE, "server_error", None, None)
    if is_out_of_credit(error):
        return _object(error.message, "insufficient_quota", None, "insufficient_quota")
    if error.code in _RATE_LIMIT_BY_CODE:
        return _object(error.message, *_RATE_LIMIT_BY_CODE[error.code])
    if isinstance(error, AuthenticationFailed):
        return _object(f"{_WRONG_KEY}: {error.message}", error.type, None, error.code)
    # OpenAI's bodies leave out what is obvious.
    param = None if isinstance(error, ModelNotFound) else error.param
    code = None if error.code == ProviderError.default_code else error.code
    return _object(error.message, error.type, param, code)


def encode_error(error: ProviderError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """A whole error response.

    Returns:
        Status, headers and body.
    """
    status = 429 if is_out_of_credit(error) else error.status
    body = orjson.dumps({"error": error_object(error)})
    return status, error_headers(error, request_id), body


def _object(message: str, error_type: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"message": message, "type": error_type, "param": param, "code": code}

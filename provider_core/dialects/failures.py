"""What all dialects say alike about an error: its headers, and what they never reveal.

Client libraries retry 408, 409, 429 and everything from 500 by themselves; `x-should-retry`
overrides that. `Retry-After` is a whole number of seconds, `retry-after-ms` the finer form that
OpenAI's libraries prefer.
"""

import math

from provider_core.errors import ProviderError

INTERNAL_MESSAGE = "the server had an error while processing the request"
"""Stands for every exception that is not a `ProviderError`."""

_DEFAULT_RETRY_AFTER_S = 1.0
_OUT_OF_CREDIT = {"insufficient_quota", "insufficient_credits", "credit_balance_exhausted"}
_NEVER_FITS = {"prompt_over_rate_limit"}


def is_out_of_credit(error: ProviderError) -> bool:
    """Whether only a payment helps: 429 in OpenAI's dialect, 402 in the others."""
    return error.code in _OUT_OF_CREDIT


def named_message(error: ProviderError) -> str:
    """The message, with the request's field before it if it does not name it.

    For dialects whose clients see nothing but the message.
    """
    if error.param is None or error.param in error.message:
        return error.message
    return f"{error.param}: {error.message}"


def error_headers(error: ProviderError, request_id: str) -> dict[str, str]:
    """The headers of an error response."""
    headers = {
        "Content-Type": "application/json",
        "X-Request-Id": request_id,
        **_retry_headers(error),
    }
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def _retry_headers(error: ProviderError) -> dict[str, str]:
    if is_out_of_credit(error) or error.code in _NEVER_FITS:
        return {"x-should-retry": "false"}
    delay_s = error.retry_after_s
    if delay_s is None:
        if error.status == 409:  # one that would stay
            return {"x-should-retry": "false"}
        if error.status not in {429, 503}:
            return {}
        delay_s = _DEFAULT_RETRY_AFTER_S
    delay_ms = max(math.ceil(delay_s * 1000), 1)
    return {"Retry-After": str(math.ceil(delay_ms / 1000)), "retry-after-ms": str(delay_ms)}

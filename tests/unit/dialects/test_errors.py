"""Errors: one table for each dialect, and the headers that steer retries."""

import inspect

import orjson
import pytest

from provider_core import errors
from provider_core.dialects import openai, openrouter
from provider_core.dialects.failures import INTERNAL_MESSAGE
from provider_core.errors import (
    AuthenticationFailed,
    BackendError,
    Conflict,
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineDead,
    InsufficientCredits,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NoEndpoints,
    NotFound,
    Overloaded,
    PermissionDenied,
    ProviderError,
    RateLimited,
    RequestTimeout,
    RequestTooLarge,
    StepFailed,
    Unavailable,
    UnsupportedMediaType,
    UnsupportedParameter,
)
from tests.sse_checker import check_error_object

INVALID = "invalid_request_error"
CREDIT = RateLimited("out of credit", code="insufficient_quota")
TABLE: list[tuple[ProviderError, int, str, str | None, int, str]] = [
    # error, then OpenAI's status, type and code, then OpenRouter's status and error_type
    (InvalidRequest("m"), 400, INVALID, "invalid_request", 400, "invalid_request"),
    (UnsupportedParameter("m"), 400, INVALID, "unsupported_parameter", 400, "invalid_request"),
    (
        ContextLengthExceeded("m"),
        400,
        INVALID,
        "context_length_exceeded",
        400,
        "context_length_exceeded",
    ),
    (ModelNotFound("m"), 404, INVALID, "model_not_found", 400, "invalid_request"),
    (NotFound("m"), 404, INVALID, "not_found", 404, "not_found"),
    (NoEndpoints("m"), 404, INVALID, "no_endpoints", 404, "not_found"),
    (MethodNotAllowed("m"), 405, INVALID, "method_not_allowed", 405, "invalid_request"),
    (RequestTimeout("m"), 408, INVALID, "request_timeout", 408, "timeout"),
    (Conflict("m"), 409, INVALID, "idempotency_conflict", 409, "invalid_request"),
    (RequestTooLarge("m"), 413, INVALID, "request_too_large", 413, "payload_too_large"),
    (UnsupportedMediaType("m"), 415, INVALID, "unsupported_media_type", 415, "invalid_request"),
    (AuthenticationFailed("m"), 401, INVALID, "invalid_api_key", 401, "authentication"),
    (PermissionDenied("m"), 403, "permission_error", "forbidden", 403, "permission_denied"),
    (RateLimited("m"), 429, "rate_limit_error", "rate_limit_exceeded", 429, "rate_limit_exceeded"),
    (Overloaded("m"), 429, "rate_limit_error", "overloaded", 429, "rate_limit_exceeded"),
    (
        InsufficientCredits("m"),
        429,
        "insufficient_quota",
        "insufficient_quota",
        402,
        "payment_required",
    ),
    (CREDIT, 429, "insufficient_quota", "insufficient_quota", 402, "payment_required"),
    (ProviderError("m"), 500, "server_error", None, 500, "server"),
    (BackendError("m"), 502, "server_error", "backend_error", 502, "provider_unavailable"),
    (StepFailed("m"), 502, "server_error", "backend_error", 502, "provider_unavailable"),
    (Unavailable("m"), 503, "server_error", "not_ready", 503, "provider_overloaded"),
    (EngineDead("m"), 503, "server_error", "backend_unavailable", 503, "provider_overloaded"),
    (DeadlineExceeded("m"), 504, "server_error", "deadline_exceeded", 504, "timeout"),
]
IDS = [f"{type(row[0]).__name__}-{row[0].code}" for row in TABLE]


def test_the_table_has_every_error_that_reaches_a_client() -> None:
    """A new class needs a row."""
    start_up_only = {errors.PluginError, errors.ConfigurationError, errors.SecretNotFound}
    known = {
        error
        for _, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, ProviderError)
    }
    assert {type(row[0]) for row in TABLE} == known - start_up_only


@pytest.mark.parametrize("row", TABLE, ids=IDS)
def test_bug_11_openai_errors(row: tuple[ProviderError, int, str, str | None, int, str]) -> None:
    """BUG-11: four keys, always; the code a string or null, never the status."""
    error, status, error_type, code, _, _ = row
    got_status, headers, body = openai.encode_error(error, "req-1")
    assert got_status == status
    assert headers["X-Request-Id"] == "req-1"
    assert headers["Content-Type"] == "application/json"
    shown = orjson.loads(body)
    message = shown["error"]["message"]
    assert message.endswith(error.message)
    assert shown == {"error": {"message": message, "type": error_type, "param": None, "code": code}}
    check_error_object(shown["error"])


@pytest.mark.parametrize("row", TABLE, ids=IDS)
def test_openrouter_errors(row: tuple[ProviderError, int, str, str | None, int, str]) -> None:
    """The code is the status as an integer; the kind stands in the metadata."""
    error, _, _, _, status, error_type = row
    got_status, headers, body = openrouter.encode_error(error, "req-1")
    assert got_status == status
    assert headers["X-Request-Id"] == "req-1"
    shown = orjson.loads(body)["error"]
    message = INTERNAL_MESSAGE if status == 500 else error.message
    assert (shown["code"], shown["message"]) == (status, message)
    assert shown["metadata"]["error_type"] == error_type
    check_error_object(shown, openrouter=True)


def test_the_field_at_fault_is_named() -> None:
    """As the client spelled it, in both dialects; OpenAI does not blame `model`."""
    assert openai.error_object(ModelNotFound("m", param="model"))["param"] is None
    error = InvalidRequest("n must be at most 8", param="n", code="invalid_value")
    assert openai.error_object(error)["param"] == "n"
    assert openrouter.error_object(error)["metadata"] == {
        "error_type": "invalid_request",
        "provider_code": "invalid_value",
        "param": "n",
    }


@pytest.mark.parametrize(
    ("code", "error_type"), [("requests_per_minute", "requests"), ("tokens_per_minute", "tokens")]
)
def test_the_type_says_which_rate_is_limited(code: str, error_type: str) -> None:
    """OpenAI's bodies name what is counted, under one code."""
    shown = openai.error_object(RateLimited("slow down", code=code))
    assert (shown["type"], shown["code"]) == (error_type, "rate_limit_exceeded")


@pytest.mark.parametrize(
    ("delay_s", "seconds", "milliseconds"),
    [
        (None, "1", "1000"),
        (0, "1", "1"),
        (0.25, "1", "250"),
        (1.2, "2", "1200"),
        (60, "60", "60000"),
    ],
)
def test_retry_after_is_a_whole_number_of_seconds(
    delay_s: float | None, seconds: str, milliseconds: str
) -> None:
    """At least 1, rounded up; the finer header beside it."""
    for dialect in (openai, openrouter):
        for kind in (Overloaded, RateLimited, Unavailable):
            _, headers, _ = dialect.encode_error(kind("busy", retry_after_s=delay_s), "r")
            assert headers["Retry-After"] == seconds
            assert headers["retry-after-ms"] == milliseconds
            assert "x-should-retry" not in headers


def test_out_of_credit_is_not_retried() -> None:
    """Waiting does not help, and client libraries are told so."""
    for dialect in (openai, openrouter):
        _, headers, _ = dialect.encode_error(CREDIT, "r")
        assert headers["x-should-retry"] == "false"
        assert "Retry-After" not in headers


def test_bug_10_mistakes_of_clients_are_not_retried() -> None:
    """BUG-10: a 4xx of the request itself carries nothing that invites repetition."""
    for error in (InvalidRequest("m"), ModelNotFound("m"), RequestTooLarge("m")):
        for dialect in (openai, openrouter):
            status, headers, _ = dialect.encode_error(error, "r")
            assert 400 <= status < 500
            assert "Retry-After" not in headers


def test_a_missing_key_names_the_scheme() -> None:
    """RFC 9110 section 15.5.2 asks for the challenge."""
    for dialect in (openai, openrouter):
        _, headers, _ = dialect.encode_error(AuthenticationFailed("no key"), "r")
        assert headers["WWW-Authenticate"] == "Bearer"


def test_foreign_exceptions_show_nothing() -> None:
    """The text of an exception that is not ours stays inside."""
    for dialect in (openai, openrouter):
        shown = dialect.error_object(RuntimeError("/etc/secret at 0x7f"))
        assert "secret" not in orjson.dumps(shown).decode()


def test_a_wrong_key_is_told_in_the_words_that_clients_look_for() -> None:
    """LiteLLM takes the error for a wrong request without them."""
    _, _, body = openai.encode_error(AuthenticationFailed("it has expired"), "req")

    message = orjson.loads(body)["error"]["message"]
    assert message == "Incorrect API key provided: it has expired"

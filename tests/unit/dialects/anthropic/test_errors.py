"""Errors and the list of models as Anthropic's clients read them."""

from typing import Any

import orjson
import pytest
from anthropic.types import ModelInfo
from anthropic.types.shared import ErrorResponse

from provider_core.dialects.anthropic import encode_error, error_body, model_info, model_page
from provider_core.errors import (
    AuthenticationFailed,
    BackendError,
    Conflict,
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineDead,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
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
from provider_core.types import ModelSpec

INVALID = "invalid_request_error"
TABLE: list[tuple[ProviderError, int, str]] = [
    (InvalidRequest("m"), 400, INVALID),
    (UnsupportedParameter("m"), 400, INVALID),
    (ContextLengthExceeded("m"), 400, INVALID),
    (ModelNotFound("m"), 404, "not_found_error"),
    (NotFound("m"), 404, "not_found_error"),
    (MethodNotAllowed("m"), 405, INVALID),
    (RequestTimeout("m"), 408, INVALID),
    (Conflict("m"), 409, INVALID),
    (RequestTooLarge("m"), 413, "request_too_large"),
    (UnsupportedMediaType("m"), 415, INVALID),
    (AuthenticationFailed("m"), 401, "authentication_error"),
    (PermissionDenied("m"), 403, "permission_error"),
    (RateLimited("m"), 429, "rate_limit_error"),
    (RateLimited("m", code="insufficient_quota"), 402, "billing_error"),
    (Overloaded("m"), 429, "rate_limit_error"),
    (ProviderError("m"), 500, "api_error"),
    (BackendError("m"), 502, "api_error"),
    (StepFailed("m"), 502, "api_error"),
    (Unavailable("m"), 529, "overloaded_error"),
    (EngineDead("m"), 529, "overloaded_error"),
    (DeadlineExceeded("m"), 504, "timeout_error"),
]


@pytest.mark.parametrize(("error", "status", "error_type"), TABLE, ids=str)
def test_bug_27_errors_keep_their_status_and_type(
    error: ProviderError, status: int, error_type: str
) -> None:
    """The body has the published shape; the id stands in it and in a header."""
    actual, headers, body = encode_error(error, "req-1")
    value = orjson.loads(body)

    assert actual == status
    assert value["error"]["type"] == error_type
    assert value["error"]["message"].endswith("m")
    assert headers["request-id"] == value["request_id"] == "req-1"
    if error_type != "request_too_large":  # documented, and not among the package's types
        ErrorResponse.model_validate(value)


def test_retries_are_steered() -> None:
    """An overload says when to come again; an empty account that it is pointless."""
    assert encode_error(Overloaded("m", retry_after_s=1.5), "r")[1]["Retry-After"] == "2"
    assert encode_error(Unavailable("m"), "r")[1]["Retry-After"] == "1"
    empty = encode_error(RateLimited("m", code="insufficient_quota"), "r")[1]
    assert empty["x-should-retry"] == "false"


def test_a_long_prompt_is_told_in_the_words_that_clients_look_for() -> None:
    """Agents compact a conversation when they read them."""
    error = ContextLengthExceeded("the maximum context length is 10 tokens")
    message = error_body(error, "r")["error"]["message"]
    assert message == "prompt is too long: the maximum context length is 10 tokens"


def test_the_field_at_fault_is_in_the_message() -> None:
    """Which is all that clients see."""
    unnamed = InvalidRequest("this is no schema", param="tools.0.input_schema")
    named = InvalidRequest("tools.0.name must be a string", param="tools.0.name")

    assert error_body(unnamed, "r")["error"]["message"] == "tools.0.input_schema: this is no schema"
    assert error_body(named, "r")["error"]["message"] == "tools.0.name must be a string"


SPECS = [ModelSpec(id=f"m/{i}", source="x", max_model_len=9, created=60) for i in range(5)]


@pytest.mark.parametrize(
    ("query", "ids", "has_more"),
    [
        ({}, [0, 1, 2, 3, 4], False),
        ({"limit": "2"}, [0, 1], True),
        ({"limit": "2", "after_id": "m/1"}, [2, 3], True),
        ({"limit": "2", "after_id": "m/2"}, [3, 4], False),
        ({"limit": "2", "before_id": "m/4"}, [2, 3], True),
        ({"limit": "2", "before_id": "m/2"}, [0, 1], False),
        ({"after_id": "m/0", "before_id": "m/3"}, [1, 2], False),
        ({"after_id": "m/4"}, [], False),
    ],
)
def test_pages_go_forward_and_backward(
    query: dict[str, str], ids: list[int], *, has_more: bool
) -> None:
    """The first and last id of a page lead to its neighbours."""
    page = model_page(SPECS, query)
    expected = [f"m/{i}" for i in ids]

    assert [item["id"] for item in page["data"]] == expected
    assert page["has_more"] is has_more
    assert page["first_id"] == (expected[0] if expected else None)
    assert page["last_id"] == (expected[-1] if expected else None)


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"limit": "²"}, {"after_id": "m"}]
)
def test_a_page_that_is_not_there_is_refused(query: dict[str, str]) -> None:
    """By the name of the parameter."""
    with pytest.raises(InvalidRequest) as caught:
        model_page(SPECS, query)
    assert caught.value.param in query


def test_a_model_has_the_type_of_the_package() -> None:
    """Its limits beside it."""
    info: dict[str, Any] = model_info(SPECS[0])

    ModelInfo.model_validate_json(orjson.dumps(info), strict=True)
    assert info["created_at"] == "1970-01-01T00:01:00Z"
    assert info["max_input_tokens"] == 9

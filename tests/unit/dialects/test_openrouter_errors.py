"""OpenRouter's words for what went wrong, and why a model cannot be had."""

from typing import Any

import pytest

from provider_core.dialects.openrouter.errors import error_object
from provider_core.errors import (
    InvalidRequest,
    ModelNotFound,
    NoEndpoints,
    Overloaded,
    ProviderError,
    RateLimited,
    Unavailable,
)


def asked(error: ProviderError) -> ProviderError:
    """An error of a request that named two models."""
    error.models = ("a/b", "c")
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("m", code="image_too_large"), "image_too_large"),
        (InvalidRequest("m", code="string_too_long"), "string_too_long"),
        (InvalidRequest("m", code="invalid_type", param="messages[2].role"), "invalid_prompt"),
        (InvalidRequest("m", code="invalid_type", param="messages"), "invalid_request"),
    ],
)
def test_a_code_that_is_a_word_of_theirs_is_the_kind(error: ProviderError, kind: str) -> None:
    """And a message at fault is an invalid prompt."""
    assert error_object(error)["metadata"]["error_type"] == kind


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (ModelNotFound("m"), "model_not_found", False),
        (NoEndpoints("m"), "no_endpoints", False),
        (NoEndpoints("m", code="privacy_restricted"), "privacy_restricted", False),
        (Overloaded("m", retry_after_s=2), "capacity_exhausted", True),
        (Unavailable("m", retry_after_s=2), "temporarily_unavailable", True),
    ],
)
def test_a_model_that_cannot_be_had_says_why(
    error: ProviderError,
    code: str,
    retryable: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """With what was asked for, and whether asking again makes sense."""
    found: dict[str, Any] = error_object(asked(error))["availability"]

    assert (found["code"], found["retryable"]) == (code, retryable)
    assert found["requested_models"] == ["a/b", "c"]
    assert found["docs_url"].endswith(f"#{code}")
    assert found.get("retry_after") == error.retry_after_s


def test_a_long_name_is_not_echoed() -> None:
    """64 characters of it, like everywhere."""
    error = ModelNotFound("m")
    error.models = ("x" * 1000,)

    assert error_object(error)["availability"]["requested_models"] == ["x" * 64]


def test_a_constraint_is_named() -> None:
    """Their word for the filter, and the field in the request."""
    error = NoEndpoints(
        "too dear",
        param="provider.max_price",
        code="constraint_filtered",
        excluded_by="max_price",
    )
    found = error_object(error)["availability"]

    assert found["excluded_by"] == ["max_price"]
    assert found["constraint"] == {"field": "provider.max_price", "detail": "too dear"}


@pytest.mark.parametrize("error", [InvalidRequest("m"), RateLimited("m"), ProviderError("m")])
def test_other_errors_say_nothing_of_availability(error: ProviderError) -> None:
    """Another model would not help."""
    assert "availability" not in error_object(error)


def test_an_internal_error_hides_everything() -> None:
    """Its message and its code are not for clients."""
    assert error_object(ProviderError("secret", code="x")) == {
        "code": 500,
        "message": "the server had an error while processing the request",
        "metadata": {"error_type": "server"},
    }

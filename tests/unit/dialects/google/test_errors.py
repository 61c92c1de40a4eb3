"""Errors and the list of models as Google's clients read them."""

from typing import Any

import orjson
import pytest
from google.genai import types

from provider_core.dialects.google import (
    encode_error,
    error_body,
    model_id,
    model_list,
    model_object,
)
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

TABLE: list[tuple[ProviderError, int, str]] = [
    (InvalidRequest("m"), 400, "INVALID_ARGUMENT"),
    (UnsupportedParameter("m"), 400, "INVALID_ARGUMENT"),
    (ContextLengthExceeded("m"), 400, "INVALID_ARGUMENT"),
    (ModelNotFound("m"), 404, "NOT_FOUND"),
    (NotFound("m"), 404, "NOT_FOUND"),
    (MethodNotAllowed("m"), 405, "UNIMPLEMENTED"),
    (RequestTimeout("m"), 408, "DEADLINE_EXCEEDED"),
    (Conflict("m"), 409, "ABORTED"),
    (RequestTooLarge("m"), 413, "INVALID_ARGUMENT"),
    (UnsupportedMediaType("m"), 415, "INVALID_ARGUMENT"),
    (AuthenticationFailed("m"), 401, "UNAUTHENTICATED"),
    (PermissionDenied("m"), 403, "PERMISSION_DENIED"),
    (RateLimited("m"), 429, "RESOURCE_EXHAUSTED"),
    (RateLimited("m", code="insufficient_quota"), 402, "RESOURCE_EXHAUSTED"),
    (Overloaded("m"), 429, "RESOURCE_EXHAUSTED"),
    (ProviderError("m"), 500, "INTERNAL"),
    (BackendError("m"), 502, "INTERNAL"),
    (StepFailed("m"), 502, "INTERNAL"),
    (Unavailable("m"), 503, "UNAVAILABLE"),
    (EngineDead("m"), 503, "UNAVAILABLE"),
    (DeadlineExceeded("m"), 504, "DEADLINE_EXCEEDED"),
]


@pytest.mark.parametrize(("error", "status", "name"), TABLE, ids=str)
def test_errors_have_the_code_and_name_of_their_status(
    error: ProviderError, status: int, name: str
) -> None:
    """`error` is the only key at the root, and so the first."""
    actual, headers, body = encode_error(error, "req-1")
    value = orjson.loads(body)

    assert actual == status
    assert headers["X-Request-Id"] == "req-1"
    assert value.keys() == {"error"}
    assert value["error"]["code"] == status
    assert (value["error"]["message"], value["error"]["status"]) == ("m", name)


@pytest.mark.parametrize(
    ("error", "kind", "fields"),
    [
        (Overloaded("m", retry_after_s=1.5), "RetryInfo", {"retryDelay": "2s"}),
        (AuthenticationFailed("m"), "ErrorInfo", {"reason": "API_KEY_INVALID"}),
        (
            InvalidRequest("m", param="contents[0]"),
            "BadRequest",
            {"fieldViolations": [{"field": "contents[0]", "description": "m"}]},
        ),
        (
            InvalidRequest("m", param="messages"),
            "BadRequest",
            {"fieldViolations": [{"field": "contents", "description": "m"}]},
        ),
    ],
)
def test_details_say_what_to_do(error: ProviderError, kind: str, fields: dict[str, Any]) -> None:
    """When to come again, and which field to mend, in this dialect's spelling."""
    (detail,) = error_body(error)["error"]["details"]
    assert detail["@type"] == f"type.googleapis.com/google.rpc.{kind}"
    assert detail.items() >= fields.items()


def test_a_foreign_exception_keeps_its_text() -> None:
    """Inside."""
    assert error_body(ValueError("secret"))["error"]["code"] == 500
    assert "secret" not in str(error_body(ValueError("secret")))


SPECS = [ModelSpec(id=f"m/{i}", source="x", max_model_len=9) for i in range(5)]


@pytest.mark.parametrize(
    ("query", "ids", "token"),
    [
        ({}, [0, 1, 2, 3, 4], None),
        ({"pageSize": "2"}, [0, 1], "2"),
        ({"pageSize": "2", "pageToken": "2"}, [2, 3], "4"),
        ({"pageSize": "2", "pageToken": "4"}, [4], None),
        ({"pageSize": "0"}, [0, 1, 2, 3, 4], None),
        ({"pageToken": "99"}, [], None),
    ],
)
def test_pages_lead_to_the_next(query: dict[str, str], ids: list[int], token: str | None) -> None:
    """The token of a page is there if there is a next one."""
    page = model_list(SPECS, query)

    assert [model["name"] for model in page["models"]] == [f"models/m/{i}" for i in ids]
    assert page.get("nextPageToken") == token


@pytest.mark.parametrize("query", [{"pageSize": "-1"}, {"pageToken": "x"}, {"pageSize": "²"}])
def test_a_page_that_is_not_there_is_refused(query: dict[str, str]) -> None:
    """By the name of the parameter."""
    with pytest.raises(InvalidRequest) as caught:
        model_list(SPECS, query)
    assert caught.value.param in query


def test_a_model_has_its_limits_and_what_it_can_do() -> None:
    """Of which the package knows the names."""
    value = model_object(SPECS[0])
    parsed = types.Model.model_validate(
        {key: item for key, item in value.items() if key != "supportedGenerationMethods"}
    )

    assert parsed.input_token_limit == parsed.output_token_limit == 9
    assert value["supportedGenerationMethods"][0] == "generateContent"
    embedder = ModelSpec(id="e", source="x", output_modalities=("embeddings",))
    assert model_object(embedder)["supportedGenerationMethods"][0] == "embedContent"


def test_a_name_is_an_id_with_or_without_its_prefix() -> None:
    """As paths have it."""
    assert model_id("models/a/b") == model_id("a/b") == "a/b"

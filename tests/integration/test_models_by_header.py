"""`GET /v1/models` is claimed by three dialects; the headers of the client decide."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from yarl import URL

from tests.serving import KEY, Serving, serving

HEADERS = {
    "openai": {"Authorization": f"Bearer {KEY}"},
    "anthropic": {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
    "google": {"x-goog-api-key": KEY},
}
IDS: dict[str, Any] = {
    "openai": lambda body: (body["object"], [model["id"] for model in body["data"]]),
    "anthropic": lambda body: (body["has_more"], [model["id"] for model in body["data"]]),
    "google": lambda body: (None, [model["name"] for model in body["models"]]),
}
LISTS = {
    "openai": ("list", ["test-model"]),
    "anthropic": (False, ["test-model"]),
    "google": (None, ["models/test-model"]),
}
ERRORS: dict[str, Any] = {
    "openai": lambda body: body["error"]["code"] == "model_not_found",
    "anthropic": lambda body: body["error"]["type"] == "not_found_error",
    "google": lambda body: body["error"]["status"] == "NOT_FOUND",
}


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server whose client sends no header by itself."""
    async with serving() as running:
        running.session.headers.pop("Authorization")
        yield running


@pytest.mark.parametrize("dialect", HEADERS)
async def test_the_list_has_the_form_of_whoever_asks(served: Serving, dialect: str) -> None:
    """One path, three lists; without a key nobody sees it."""
    url = served.url + "/v1/models"
    async with served.session.get(url, headers=HEADERS[dialect]) as response:
        assert response.status == 200
        assert IDS[dialect](await response.json()) == LISTS[dialect]
    without_key = {name: "" for name in HEADERS[dialect] if name != "anthropic-version"}
    async with served.session.get(url, headers=without_key) as response:
        assert response.status == 401


@pytest.mark.parametrize("dialect", HEADERS)
@pytest.mark.parametrize("name", ["openai/gpt-test", "openai%2Fgpt-test"])
async def test_one_model_is_found_whether_its_slash_is_encoded_or_not(
    served: Serving, dialect: str, name: str
) -> None:
    """And an unknown one is not, in the form of whoever asks."""
    url = URL(f"{served.url}/v1/models/{name}", encoded=True)
    async with served.session.get(url, headers=HEADERS[dialect]) as response:
        assert response.status == 200
        body = await response.json()
    assert "test-model" in (body.get("id"), body.get("name", "").removeprefix("models/"))
    unknown = served.url + "/v1/models/nobody"
    async with served.session.get(unknown, headers=HEADERS[dialect]) as response:
        assert response.status == 404
        assert ERRORS[dialect](await response.json())

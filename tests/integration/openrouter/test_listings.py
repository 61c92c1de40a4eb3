"""What OpenRouter's monitor and its clients read of the models, from a real server."""

import json
from dataclasses import replace
from importlib.resources import files
from typing import Any

import aiohttp
import jsonschema_rs
import pytest

from tests.serving import Serving, saying, serving

SCHEMA = files("provider_core.conformance") / "data" / "openrouter_monitor_2_4.schema.json"
FACTS: dict[str, Any] = {  # settings of several types
    "provider": {
        "name": "Acme",
        "slug": "acme",
        "countries": ("FR",),
        "privacy_policy_url": "https://acme.example/privacy",
    },
    "server": {"country": "DE", "region": "eu-1"},
}


async def get(served: Serving, path: str, **options: Any) -> tuple[int, Any]:
    """Status and body."""
    async with served.session.get(served.url + path, **options) as response:
        return response.status, await response.json()


async def test_the_monitor_reads_a_valid_document_without_a_key() -> None:
    """Schema 2.4 by default; limits, prices and places are those of the configuration."""
    async with (
        serving(max_num_seqs=3, **FACTS) as served,
        aiohttp.ClientSession() as nobody,
        nobody.get(served.url + "/openrouter/models") as response,
    ):
        answer = await response.json()
    jsonschema_rs.validator_for(json.loads(SCHEMA.read_bytes())).validate(answer)
    (model,) = answer["data"]

    assert model["id"] == "test-model"
    assert model["input_modalities"][0]["supported_inputs"]["max_context_length"]["value"] == 2048
    assert model["input_modalities"][0]["pricing"][0]["cost_usd"] == "0.000001"
    assert model["datacenters"] == [
        {"country_code": "FR"},
        {"country_code": "DE", "region": "eu-1"},
    ]
    assert model["capacity"] == [{"type": "concurrency", "unit": "request", "value": 3}]
    assert "logprobs" in model["output_modalities"][0]["supported_parameters"]


async def test_the_older_form_is_asked_for() -> None:
    """An unknown form is a mistake."""
    async with serving() as served:
        status, answer = await get(served, "/openrouter/models?format=legacy")
        refused, _ = await get(served, "/openrouter/models?format=3")

    assert (status, refused) == (200, 400)
    assert answer["data"][0]["max_output_length"] == 2048


async def test_a_model_that_is_not_ready_says_so() -> None:
    """It is hidden before it is stopped."""
    async with serving() as served:
        models = served.server.models
        models.update(replace(models.find("test-model").spec, is_ready=False))
        _, answer = await get(served, "/openrouter/models")

    assert answer["data"][0]["is_ready"] is False


@pytest.mark.parametrize("path", ["/openrouter/models", "/api/v1/models", "/api/v1/providers"])
async def test_listings_can_be_closed(path: str) -> None:
    """A setting asks for a key."""
    async with serving(access={"private_models": True}) as served:
        async with aiohttp.ClientSession() as nobody, nobody.get(served.url + path) as response:
            assert response.status == 401
        status, _ = await get(served, path)

    assert status == 200


async def test_clients_read_a_model_with_everything_their_schema_requires() -> None:
    """And `data[]` alone is enough for OpenAI's list."""
    async with serving(**FACTS) as served:
        _, page = await get(served, "/api/v1/models")
        _, alone = await get(served, "/api/v1/model/test-model")
        _, retrieved = await get(served, "/api/v1/models/test-model")
        _, count = await get(served, "/api/v1/models/count")
    (model,) = page["data"]

    assert page["total_count"] == 1
    assert page["links"] == {"next": None}
    assert count == {"data": {"count": 1}}
    assert alone == {"data": model}
    assert retrieved["object"] == "model"
    assert model.keys() >= {
        "id",
        "canonical_slug",
        "name",
        "created",
        "pricing",
        "context_length",
        "architecture",
        "top_provider",
        "per_request_limits",
        "supported_parameters",
        "default_parameters",
        "supported_voices",
        "links",
    }
    assert model["architecture"]["modality"] == "text->text"
    assert model["pricing"]["prompt"] == "0.000001"


async def test_a_model_is_served_by_this_provider() -> None:
    """Its details lead to where it runs; what a marketplace measures is left to it."""
    async with serving(**FACTS) as served:
        _, page = await get(served, "/api/v1/models")
        _, answer = await get(served, page["data"][0]["links"]["details"])
        _, providers = await get(served, "/api/v1/providers")
    (endpoint,) = answer["data"]["endpoints"]

    assert (endpoint["provider_name"], endpoint["tag"], endpoint["status"]) == ("Acme", "acme", 0)
    assert endpoint["uptime_last_1d"] is None
    assert providers["data"] == [
        {
            "name": "Acme",
            "slug": "acme",
            "privacy_policy_url": "https://acme.example/privacy",
            "terms_of_service_url": None,
            "status_page_url": None,
            "headquarters": None,
            "datacenters": ["FR", "DE"],
        }
    ]


async def test_an_unknown_model_is_a_mistake_of_the_request() -> None:
    """400 under `/api/v1`, 404 under `/v1`."""
    async with serving() as served:
        ours, answer = await get(served, "/api/v1/models/no/body/endpoints")
        openai, _ = await get(served, "/v1/models/no/body")

    assert (ours, openai) == (400, 404)
    assert answer["error"]["code"] == 400


@pytest.mark.parametrize(
    ("headers", "shape"),
    [
        ({}, {"object", "data"}),
        ({"anthropic-version": "2023-06-01"}, {"data", "has_more", "first_id", "last_id"}),
    ],
)
async def test_one_path_lists_models_for_several_dialects(
    headers: dict[str, str], shape: set[str]
) -> None:
    """Headers say who asks."""
    async with serving(saying("x")) as served:
        _, answer = await get(served, "/v1/models", headers=headers)

    assert set(answer) == shape

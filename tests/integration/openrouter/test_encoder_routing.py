"""Fallbacks, preferences and listings of models that make vectors."""

from typing import Any

from provider_core.testing import ScriptedEncoder
from tests.serving import serving


def encoder(spec: Any) -> ScriptedEncoder:
    """Any model."""
    return ScriptedEncoder(embedding_size=4, max_model_len=spec.max_model_len)


async def test_embeddings_know_fallbacks_and_preferences() -> None:
    """As everything that generates does."""
    async with serving(encoder) as served:
        body = {"models": ["nobody", "test-model:nitro"], "input": "hi"}
        found = await served.post("/api/v1/embeddings", body)
        refused = await served.post(
            "/api/v1/embeddings", {**body, "provider": {"only": ["another"]}}
        )

    assert found.status == 200
    assert refused.status == 404
    assert [event["model"] for event in served.usage.events] == ["test-model"]


async def test_a_cache_that_embeddings_do_not_use_is_not_mentioned() -> None:
    """Every request runs."""
    async with serving(encoder, response_cache={"max_bytes": 2**20}) as served:
        replies = [
            await served.post(
                "/api/v1/embeddings",
                {"model": "test-model", "input": "hi"},
                headers={"X-OpenRouter-Cache": "true"},
            )
            for _ in range(2)
        ]

    assert all("X-OpenRouter-Cache-Status" not in reply.headers for reply in replies)


async def test_an_encoder_is_listed_as_what_it_is() -> None:
    """Vectors out, no chat parameters; its generations say so too."""
    async with serving(encoder) as served:
        reply = await served.post("/api/v1/embeddings", {"model": "test-model", "input": "hi"})
        path = f"/api/v1/generation?id={reply.headers['X-Generation-Id']}"
        async with served.session.get(served.url + path) as response:
            found = await response.json()
        async with served.session.get(served.url + "/openrouter/models") as response:
            (model,) = (await response.json())["data"]

    (output,) = model["output_modalities"]
    assert output["type"] == "embeddings"
    assert output["supported_parameters"].keys() == {"encoding_format"}
    assert found["data"]["api_type"] == "embeddings"

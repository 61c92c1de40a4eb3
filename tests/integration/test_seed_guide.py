"""The client code of an OpenRouter guide, run with only base URL and key changed.

Its model names are aliases here, as a provider would configure them.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
import requests

from tests.serving import KEY, Serving, saying, serving

ALIASES = (
    "anthropic/claude-3-haiku",
    "meta-llama/llama-3.1-8b-instruct",
    "openai/gpt-3.5-turbo",
    "mistralai/mixtral-8x7b-instruct",
)


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server that knows the guide's models under its own one."""
    async with serving(saying("Hello!"), aliases=ALIASES) as running:
        yield running


def headers() -> dict[str, str]:
    """As the guide sets them."""
    return {
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
        "HTTP-Referer": "https://your-app.com",
        "X-Title": "Your App Name",
    }


async def test_the_openai_sdk_listing(served: Serving) -> None:
    """Section "Using OpenAI SDK (Recommended)"."""

    def listing() -> str | None:
        client = openai.OpenAI(base_url=f"{served.url}/api/v1", api_key=KEY)
        response = client.chat.completions.create(
            model="anthropic/claude-3-haiku",
            messages=[
                {"role": "system", "content": "You are a helpful assistant"},
                {"role": "user", "content": "Hello, how are you?"},
            ],
        )
        return response.choices[0].message.content

    assert await asyncio.to_thread(listing) == "Hello!"


async def test_the_requests_listing_and_its_attribution(served: Serving) -> None:
    """Section "Using Requests Library": the app's name and referer end up in the usage line."""

    def listing() -> Any:
        data: dict[str, Any] = {
            "model": "meta-llama/llama-3.1-8b-instruct",
            "messages": [{"role": "user", "content": "Explain quantum computing"}],
            "temperature": 0.7,
            "max_tokens": 150,
        }
        url = f"{served.url}/api/v1/chat/completions"
        return requests.post(url, headers=headers(), json=data, timeout=30).json()

    body = await asyncio.to_thread(listing)
    assert body["choices"][0]["message"]["content"] == "Hello!"
    assert body["usage"]["cost"] > 0
    (event,) = served.usage.events
    assert event["app_title"] == "Your App Name"
    assert event["app_referer"] == "https://your-app.com"
    assert event["model"] == "test-model"


async def test_the_streaming_listing_indexes_every_chunk(served: Serving) -> None:
    """Section "Streaming Responses": `choices[0]` of each chunk must be there."""

    def listing() -> str:
        url = f"{served.url}/api/v1/chat/completions"
        data: dict[str, Any] = {
            "model": "openai/gpt-3.5-turbo",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
        }
        shown = ""
        with requests.post(url, headers=headers(), json=data, stream=True, timeout=30) as response:
            for raw in response.iter_lines():
                line = raw.decode("utf-8")
                if line.startswith("data: "):
                    if line.strip() == "data: [DONE]":
                        break
                    json_data = json.loads(line[6:])
                    if "choices" in json_data:
                        shown += json_data["choices"][0].get("delta", {}).get("content", "")
        return shown

    assert await asyncio.to_thread(listing) == "Hello!"


async def test_the_provider_routing_listing(served: Serving) -> None:
    """Section "Provider Routing": preferences are accepted."""
    response = await served.post(
        "/api/v1/chat/completions",
        {
            "model": "mistralai/mixtral-8x7b-instruct",
            "messages": [{"role": "user", "content": "Hello"}],
            "provider": {
                "order": ["together", "deepinfra"],
                "require_parameters": True,
                "data_collection": "deny",
            },
        },
    )
    assert response.status == 200


async def test_the_partial_response_listing(served: Serving) -> None:
    """Section "Partial Response Completion": a trailing assistant message is continued."""
    response = await served.chat()
    messages = [
        {"role": "user", "content": "List three benefits of exercise"},
        {"role": "assistant", "content": "Here are three benefits of exercise:\n1."},
    ]
    response = await served.post(
        "/api/v1/chat/completions", {"model": "openai/gpt-3.5-turbo", "messages": messages}
    )
    assert response.status == 200


async def test_the_aiohttp_and_models_listings(served: Serving) -> None:
    """Section "Async Implementation with aiohttp", and the client class's `list_models`."""
    async with aiohttp.ClientSession() as session:
        async with session.post(
            f"{served.url}/api/v1/chat/completions",
            headers=headers(),
            json={
                "model": "openai/gpt-3.5-turbo",
                "messages": [{"role": "user", "content": "What is async programming?"}],
            },
        ) as response:
            assert (await response.json())["choices"][0]["message"]["content"] == "Hello!"
        async with session.get(f"{served.url}/api/v1/models", headers=headers()) as response:
            models = (await response.json())["data"]
    assert [model["id"] for model in models] == ["test-model"]


async def test_the_authentication_troubleshooting(served: Serving) -> None:
    """Section "Authentication Errors": a wrong key is a 401."""
    response = await served.post(
        "/api/v1/chat/completions",
        {"model": "test-model", "messages": [{"role": "user", "content": "hi"}]},
        headers={"Authorization": "Bearer wrong-key"},
    )
    assert response.status == 401

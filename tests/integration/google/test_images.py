"""Images with the google-genai package, over a scripted runner that sees."""

from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.genai import errors, types

from tests.integration.test_images import picture, seeing
from tests.serving import KEY, Serving, serving

# The package subclasses aiohttp's session, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")


@asynccontextmanager
async def client_of(served: Serving) -> AsyncIterator[genai.client.AsyncClient]:
    """The SDK's client, as a user makes it."""
    client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=served.url)).aio
    try:
        yield client
    finally:
        await client.aclose()


def request(colour: str) -> Any:  # the SDK's arguments are of many types
    """A request of one turn with a picture of one colour."""
    data = b64decode(picture(colour)["image_url"]["url"].partition(",")[2])
    contents = ["a", types.Part.from_bytes(data=data, mime_type="image/png")]
    return {"model": "test-model", "contents": contents}


async def test_a_model_that_sees_is_shown_images(tmp_path: Path) -> None:
    """As the package encodes them; their tokens are prompt tokens, which `countTokens` knows."""
    async with seeing(tmp_path) as (served, runner), client_of(served) as client:
        reply = await client.models.generate_content(**request("red"))
        counted = await client.models.count_tokens(**request("red"))
        (event,) = served.usage.events
    assert reply.text == "I see."
    assert list(runner.fed.values()) == [[255, 0, 0], [255, 0, 0]]
    assert reply.usage_metadata is not None
    assert reply.usage_metadata.prompt_token_count == counted.total_tokens
    assert event["image_count"] == 1


async def test_a_model_that_reads_text_only_refuses_an_image_at_its_place() -> None:
    """In this dialect's spelling."""
    async with serving() as served, client_of(served) as client:
        with pytest.raises(errors.ClientError) as caught:
            await client.models.generate_content(**request("red"))
        assert served.usage.events == []
    assert "contents[0].parts[1].inlineData" in (caught.value.message or "")

"""Images with the anthropic package, over a scripted runner that sees."""

from pathlib import Path
from typing import Any

import anthropic
import pytest

from tests.integration.test_images import picture, seeing
from tests.serving import KEY, Serving, serving


def image(colour: str) -> Any:
    """A block with a picture of one colour."""
    head, _, data = picture(colour)["image_url"]["url"].partition(",")
    media_type = head.removeprefix("data:").removesuffix(";base64")
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def request(*content: Any) -> Any:  # the SDK's arguments are of many types
    """A request of one turn."""
    messages = [{"role": "user", "content": [*content]}]
    return {"model": "test-model", "max_tokens": 50, "messages": messages}


def client_of(served: Serving) -> anthropic.AsyncAnthropic:
    """The SDK's client, as a user makes it."""
    return anthropic.AsyncAnthropic(base_url=served.url, api_key=KEY, max_retries=0)


async def test_a_model_that_sees_is_shown_images(tmp_path: Path) -> None:
    """Where they stand; their tokens are input tokens, which `count_tokens` knows."""
    asked = request({"type": "text", "text": "a"}, image("red"))
    async with seeing(tmp_path) as (served, runner), client_of(served) as client:
        message = await client.messages.create(**asked)
        counted = await client.messages.count_tokens(model="test-model", messages=asked["messages"])
        (event,) = served.usage.events
    assert message.content[0].type == "text"
    assert message.content[0].text == "I see."
    assert list(runner.fed.values()) == [[255, 0, 0], [255, 0, 0]]
    assert message.usage.input_tokens == counted.input_tokens
    assert event["image_count"] == 1


async def test_a_model_that_reads_text_only_refuses_an_image_at_its_place() -> None:
    """In this dialect's spelling."""
    async with serving() as served, client_of(served) as client:
        with pytest.raises(anthropic.BadRequestError, match=r"messages\.0\.content\.1: images"):
            await client.messages.create(**request({"type": "text", "text": "a"}, image("red")))
        assert served.usage.events == []

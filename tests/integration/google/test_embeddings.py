"""Embeddings with the google-genai package, over a scripted encoder and the real server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google import genai
from google.genai import errors, types

from provider_core.encoders import EncoderRow
from provider_core.testing import ScriptedEncoder
from provider_core.testing.scripted_encoder import expected_vector
from tests.serving import KEY, Serving, ids_of, saying, serving

# The package subclasses aiohttp's session, which aiohttp discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")

SIZE = 8
PATH = "/v1beta/models/test-model:"


def values_of(text: str) -> npt.NDArray[np.float32]:
    """What the scripted encoder says to a text."""
    return expected_vector(EncoderRow(np.array(ids_of(text), np.int32)), SIZE)


def content(text: str) -> dict[str, Any]:
    """A content of text."""
    return {"parts": [{"text": text}]}


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server of one encoder with vectors of 8 numbers that may be cut to 4."""

    def load(spec: Any) -> ScriptedEncoder:
        return ScriptedEncoder(
            embedding_size=SIZE, max_model_len=spec.max_model_len, shorter_sizes=(4,)
        )

    async with serving(load, max_model_len=64) as running:
        yield running


@asynccontextmanager
async def client_of(served: Serving) -> AsyncIterator[genai.client.AsyncClient]:
    """The SDK's client, as a user makes it."""
    client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=served.url)).aio
    try:
        yield client
    finally:
        await client.aclose()


async def test_the_package_gets_a_vector_for_each_text(served: Serving) -> None:
    """In their order; billed as embeddings."""
    texts: Any = ["hi", "you"]  # the SDK's type is a list of everything that may be embedded
    async with client_of(served) as client:
        reply = await client.models.embed_content(model="test-model", contents=texts)
        short = await client.models.embed_content(
            model="test-model",
            contents="hi",
            config={"output_dimensionality": 4, "task_type": "RETRIEVAL_QUERY"},
        )
    vectors = [embedding.values for embedding in reply.embeddings or []]

    assert np.allclose(np.array(vectors), [values_of("hi"), values_of("you")])
    assert len((short.embeddings or [])[0].values or []) == 4
    assert [event["endpoint"] for event in served.usage.events] == ["embeddings"] * 2
    assert served.usage.events[0]["prompt_tokens"] == 5


async def test_one_content_has_one_vector(served: Serving) -> None:
    """`:embedContent`, which raw clients call; parts are lines."""
    body = {"content": {"parts": [{"text": "a"}, {"text": "b"}]}, "task_type": "CLUSTERING"}
    reply = await (await served.post(PATH + "embedContent", body)).json()

    assert np.allclose(reply["embedding"]["values"], values_of("a\nb"))
    assert reply["usageMetadata"] == {"promptTokenCount": 3}


@pytest.mark.parametrize(
    ("verb", "body", "field"),
    [
        ("embedContent", {}, "content"),
        ("embedContent", {"content": {"parts": []}}, "content"),
        ("embedContent", {"content": {"parts": [{"inlineData": {}}]}}, "content.parts[0]"),
        ("embedContent", {"content": content("a" * 99)}, "content"),
        ("embedContent", {"content": content("a"), "taskType": "X"}, "taskType"),
        (
            "embedContent",
            {"content": content("a"), "outputDimensionality": 0},
            "outputDimensionality",
        ),
        ("batchEmbedContents", {}, "requests"),
        ("batchEmbedContents", {"requests": []}, "requests"),
        ("batchEmbedContents", {"requests": [{"content": 5}]}, "requests[0].content"),
        (
            "batchEmbedContents",
            {"requests": [{"content": content("a")}, {"content": content("a" * 99)}]},
            "requests[1].content",
        ),
        (
            "batchEmbedContents",
            {
                "requests": [
                    {"content": content("a"), "taskType": "RETRIEVAL_QUERY"},
                    {"content": content("a")},
                ]
            },
            "requests",
        ),
    ],
)
async def test_bug_10_what_cannot_be_read_is_named(
    served: Serving, verb: str, body: dict[str, Any], field: str
) -> None:
    """A 400 in this dialect's shape, with the field in the details."""
    response = await served.post(PATH + verb, body)
    error = (await response.json())["error"]

    assert (response.status, error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["details"][0]["fieldViolations"][0]["field"] == field


async def test_models_that_cannot_are_refused_either_way(served: Serving) -> None:
    """An encoder writes nothing, a decoder has no vectors; listings say which is which."""
    async with client_of(served) as client:
        models = [model async for model in await client.models.list()]
        with pytest.raises(errors.ClientError) as chat:
            await client.models.generate_content(model="test-model", contents="hi")
    async with serving(saying("Hello!")) as decoder, client_of(decoder) as client:
        with pytest.raises(errors.ClientError) as embed:
            await client.models.embed_content(model="test-model", contents="hi")

    assert models[0].supported_actions == ["embedContent", "batchEmbedContents"]
    assert chat.value.code == embed.value.code == 400

"""`/v1/embeddings` as clients use it, over a scripted encoder and the real server."""

import asyncio
import math
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import openai
import pytest

from provider_core.encoders import EncoderRow
from provider_core.errors import EngineDead
from provider_core.testing import ScriptedEncoder
from provider_core.testing.scripted_encoder import expected_vector
from provider_core.types import ModelSpec
from tests.serving import KEY, VOCAB_SIZE, Serving, ids_of, saying, serving
from tests.unit.engine.test_encoder_engine import Hold

SIZE = 8
PATH = "/v1/embeddings"


def vector_of(text: str) -> np.ndarray:
    """What the scripted encoder says to a text."""
    return expected_vector(EncoderRow(np.array(ids_of(text), np.int32)), SIZE)


def encoder(**options: Any) -> Any:
    """A factory of scripted encoders."""
    return lambda spec: ScriptedEncoder(
        **{"embedding_size": SIZE, "max_model_len": spec.max_model_len, **options}
    )


def body(value: Any = "hi", **fields: Any) -> dict[str, Any]:
    """A request."""
    return {"model": "test-model", "input": value, **fields}


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server of one encoder with vectors of 8 numbers that may be cut to 4."""
    async with serving(encoder(shorter_sizes=(4,)), max_model_len=64) as running:
        yield running


async def vectors_in(served: Serving, **fields: Any) -> list[list[float]]:
    """The vectors of an answer."""
    answer = await (await served.post(PATH, body(**fields))).json()
    return [item["embedding"] for item in answer["data"]]


async def test_bug_25_the_package_of_openai_gets_numbers_by_default(served: Serving) -> None:
    """It asks for base64 in its default call, and for numbers when it is told."""
    async with openai.AsyncOpenAI(base_url=served.url + "/v1", api_key=KEY) as client:
        default = await client.embeddings.create(model="test-model", input=["hi", "you"])
        numbers = await client.embeddings.create(
            model="test-model", input="hi", encoding_format="float"
        )
    assert [item.index for item in default.data] == [0, 1]
    assert np.allclose(default.data[1].embedding, vector_of("you"), atol=1e-7)
    assert np.array_equal(np.array(numbers.data[0].embedding, np.float32), vector_of("hi"))
    assert (default.usage.prompt_tokens, default.usage.total_tokens) == (5, 5)


async def test_base64_is_exact(served: Serving) -> None:
    """Little-endian float32."""
    [data] = await vectors_in(served, encoding_format="base64")
    assert np.array_equal(np.frombuffer(b64decode(str(data)), "<f4"), vector_of("hi"))


async def test_token_ids_are_read_as_they_are(served: Serving) -> None:
    """One array, or several."""
    whole = await vectors_in(served, value=["hi", "you"])
    assert await vectors_in(served, value=[ids_of("hi"), ids_of("you")]) == whole
    assert await vectors_in(served, value=ids_of("you")) == whole[1:]


async def test_vectors_are_cut_where_the_model_was_trained_so(served: Serving) -> None:
    """And have length 1 again."""
    [vector] = await vectors_in(served, dimensions=4)
    expected = vector_of("hi")[:4] / np.linalg.norm(vector_of("hi")[:4])
    assert np.allclose(vector, expected, atol=1e-6)
    assert math.isclose(np.linalg.norm(vector), 1, rel_tol=1e-6)
    assert (await served.post(PATH, body(dimensions=SIZE))).status == 200


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"value": ""}, "input", "invalid_value"),
        ({"value": ["a", ""]}, "input[1]", "invalid_value"),
        ({"value": ["a", "b" * 65]}, "input[1]", "context_length_exceeded"),
        ({"value": [[1], [VOCAB_SIZE]]}, "input[1]", "invalid_value"),
        ({"dimensions": 5}, "dimensions", "invalid_value"),
        ({"encoding_format": "int8"}, "encoding_format", "invalid_value"),
        ({"input_type": "poem"}, "input_type", "invalid_value"),
        ({"model": "nobody"}, None, "model_not_found"),
    ],
)
async def test_what_cannot_be_embedded_is_named(
    served: Serving, fields: dict[str, Any], param: str | None, code: str
) -> None:
    """A 400 (or 404) with the field, a message, and nothing billed."""
    response = await served.post(PATH, body(**fields))
    error = (await response.json())["error"]
    assert response.status == (404 if code == "model_not_found" else 400)
    assert (error["param"], error["code"]) == (param, code)
    assert served.usage.events == []


async def test_a_text_that_is_too_long_says_the_limit(served: Serving) -> None:
    """Which text, how long it is, how long it may be."""
    response = await served.post(PATH, body(["a", "b" * 65]))
    message = (await response.json())["error"]["message"]
    assert "input[1] has 65" in message
    assert "64 tokens" in message


async def test_all_texts_together_are_bounded() -> None:
    """However short each is."""
    async with serving(encoder(), limits={"max_input_tokens": 10}) as served:
        assert (await served.post(PATH, body(["12345"] * 2))).status == 200
        response = await served.post(PATH, body(["12345"] * 3))
        assert response.status == 400
        assert (await response.json())["error"]["param"] == "input"


async def test_a_model_without_short_vectors_refuses_dimensions() -> None:
    """Rather than give the wrong ones."""
    async with serving(encoder()) as served:
        response = await served.post(PATH, body(dimensions=4))
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "unsupported_parameter"


async def test_models_are_not_asked_for_what_they_are_not(served: Serving) -> None:
    """Chat with an encoder, and vectors of a chat model: the model's name is at fault."""
    messages = [{"role": "user", "content": "hi"}]
    chat = await served.post("/v1/chat/completions", {"model": "test-model", "messages": messages})
    rerank = await served.post(
        "/v1/rerank", {"model": "test-model", "query": "q", "documents": ["d"]}
    )
    async with serving(saying("Hello!")) as writer:
        vectors = await writer.post(PATH, body())
        for response in (chat, rerank, vectors):
            error = (await response.json())["error"]
            assert (response.status, error["param"]) == (400, "model")
            assert error["code"] == "model_not_supported"


async def test_the_model_is_listed(served: Serving) -> None:
    """With what it reads; and health and metrics count it."""
    listed = await (await served.session.get(served.url + "/v1/models")).json()
    assert [(item["id"], item["context_length"]) for item in listed["data"]] == [("test-model", 64)]
    assert (await served.session.get(served.url + "/readyz")).status == 200
    await served.post(PATH, body())
    metrics = await (await served.session.get(served.url + "/metrics")).text()
    assert 'provider_prompt_tokens_total{model="test-model"} 2.0' in metrics


async def test_each_request_is_billed_once_and_exactly(served: Serving) -> None:
    """By its prompt's tokens; the answer's id is the event's."""
    response = await served.post("/api/v1/embeddings", body(["hi", "you"], user="u"))
    answer = await response.json()
    [event] = served.usage.events
    assert (event["endpoint"], event["operation"], event["status"]) == ("embeddings",) * 2 + ("ok",)
    assert (event["prompt_tokens"], event["completion_tokens"], event["cost"]) == (5, 0, "0.000005")
    assert event["billable"] is True
    assert event["user_id"] == "u"
    assert event["started_at"] is not None
    assert answer["id"] == event["generation_id"] == response.headers["X-Generation-Id"]
    assert answer["usage"]["cost"] == 0.000005


async def test_many_requests_at_once_get_their_own() -> None:
    """Batches mix them; counts add up."""
    async with serving(encoder(), limits={"queue_factor": 20}) as served:
        texts = [[f"{i}-{j}" * (1 + j % 7) for j in range(1 + i % 9)] for i in range(60)]
        responses = await asyncio.gather(*(served.post(PATH, body(each)) for each in texts))
        for each, response in zip(texts, responses, strict=True):
            data = (await response.json())["data"]
            vectors = np.array([item["embedding"] for item in data], np.float32)
            assert np.array_equal(vectors, [vector_of(text) for text in each])
        num_tokens = sum(len(text) for each in texts for text in each)
        assert sum(event["prompt_tokens"] for event in served.usage.events) == num_tokens


async def test_overload_is_refused_with_a_time_to_come_back() -> None:
    """429 before any text is read, and nothing billed."""
    hold = Hold()
    async with serving(
        encoder(on_encode=hold, max_num_seqs=1), limits={"queue_factor": 1}
    ) as served:
        running = asyncio.create_task(served.post(PATH, body()))
        await hold.entered()
        waiting = asyncio.create_task(served.post(PATH, body()))
        engine = served.server.models.find("test-model").engine
        await served.wait_until(lambda: engine.load().num_waiting == 1)
        refused = await served.post(PATH, body())
        hold.let_go(2)
        assert refused.status == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert [(await each).status for each in (running, waiting)] == [200, 200]
        assert len(served.usage.events) == 2


async def test_a_client_that_leaves_is_not_billed() -> None:
    """Its work is dropped, and the line says where it was."""
    hold = Hold()
    async with serving(encoder(on_encode=hold)) as served:
        running = asyncio.create_task(served.post(PATH, body()))
        await hold.entered()
        leaving = asyncio.create_task(served.post(PATH, body("you")))
        engine = served.server.models.find("test-model").engine
        await served.wait_until(lambda: engine.load().num_waiting == 1)
        leaving.cancel()
        await served.wait_until(lambda: len(served.usage.events) == 1)
        hold.let_go(10)
        assert (await running).status == 200
        assert [each for call in hold.calls for each in call] == [ids_of("hi")]
        event = served.usage.events[0]
        assert (event["status"], event["cancel_stage"]) == ("cancelled", "queue")
        assert (event["billable"], event["cost"]) == (False, "0")


async def test_a_deadline_is_kept() -> None:
    """504, settled as an error, and the engine goes on."""
    hold = Hold()
    async with serving(encoder(on_encode=hold)) as served:
        late = await served.post(PATH, body(), headers={"X-Request-Deadline-Ms": "50"})
        hold.let_go(10)
        assert late.status == 504
        assert served.usage.events[0]["error_code"] == "deadline_exceeded"
        assert (await served.post(PATH, body())).status == 200


async def test_a_drain_lets_it_end_and_its_end_cuts_it() -> None:
    """What runs is part of what the server waits for."""
    hold = Hold()
    async with serving(encoder(on_encode=hold), server={"grace_s": 3.1}) as served:
        running = asyncio.create_task(served.post(PATH, body()))
        await hold.entered()
        drain = asyncio.create_task(served.server.drain())
        response = await running
        hold.let_go(10)
        await drain
        assert response.status == 503
        assert served.usage.events[0]["billing_rule"] == "R7"


async def test_a_dead_encoder_says_so() -> None:
    """The server stops, and nobody is billed."""

    def die(_: object) -> None:
        raise EngineDead("gone")

    async with serving(encoder(on_encode=die)) as served:
        response = await served.post(PATH, body())
        assert response.status == 503
        await served.wait_until(served.server.stopping.is_set)
        assert (await served.session.get(served.url + "/readyz")).status == 503
        assert served.usage.events[0]["billable"] is False


async def test_an_encoder_can_be_removed_and_changed(served: Serving) -> None:
    """As any other model."""
    models = served.server.models
    spec: ModelSpec = models.find("test-model").spec
    models.update(spec)
    assert models.find("test-model").spec == spec
    assert (await served.post(PATH, body())).status == 200
    await models.remove("test-model")
    assert (await served.post(PATH, body())).status == 404


async def test_texts_too_long_for_their_price_are_not_read() -> None:
    """`max_price` is held against the tier that all of them together would be billed at."""
    tiers = [{"min_prompt_tokens": 20, "prompt": "0.000005", "completion": "0"}]
    cheap = {"provider": {"max_price": {"prompt": 1}}}
    async with serving(encoder(), max_model_len=64, pricing={"tiers": tiers}) as served:
        one = await served.post(PATH, body("x" * 12, **cheap))
        two = await served.post(PATH, body(["x" * 12, "y" * 12], **cheap))
        assert [event["prompt_tokens"] for event in served.usage.events] == [12]
    assert (one.status, two.status) == (200, 404)

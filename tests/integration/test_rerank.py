"""`/v1/rerank` over a scripted encoder and the real server."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from provider_core.testing import ScriptedEncoder
from tests.serving import Serving, serving

PATH = "/v1/rerank"
DOCUMENTS = ["xyz", "ab", "axyz"]  # scores: none, all, and a quarter of the letters are the query's


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server of one reranker."""
    async with serving(
        lambda spec: ScriptedEncoder(task="score", max_model_len=spec.max_model_len),
        max_model_len=16,
    ) as running:
        yield running


def body(**fields: Any) -> dict[str, Any]:
    """A request."""
    return {"model": "test-model", "query": "ab", "documents": DOCUMENTS, **fields}


async def test_documents_come_best_first(served: Serving) -> None:
    """With their scores, their texts, and where they were."""
    answer = await (await served.post(PATH, body())).json()
    assert [item["index"] for item in answer["results"]] == [1, 2, 0]
    assert [item["relevance_score"] for item in answer["results"]] == [1, 0.25, 0]
    assert [item["document"]["text"] for item in answer["results"]] == ["ab", "axyz", "xyz"]
    assert answer["usage"]["total_tokens"] == 3 * 2 + 9
    assert answer["model"] == "test-model"


async def test_top_n_cuts_the_results(served: Serving) -> None:
    """And more than there are is all."""
    answers = [
        await (await served.post(PATH, body(top_n=n, return_documents=False))).json()
        for n in (1, 9)
    ]
    assert [len(answer["results"]) for answer in answers] == [1, 3]
    assert answers[0]["results"] == [{"index": 1, "relevance_score": 1}]


async def test_equal_scores_keep_their_order(served: Serving) -> None:
    """So that an answer can be repeated."""
    answer = await (await served.post(PATH, body(documents=["x", "y", "z"]))).json()
    assert [item["index"] for item in answer["results"]] == [0, 1, 2]


async def test_each_request_is_billed_once(served: Serving) -> None:
    """By the tokens of all pairs."""
    response = await served.post("/api/v1/rerank", body())
    [event] = served.usage.events
    assert (event["endpoint"], event["operation"]) == ("rerank", "rerank")
    assert (event["prompt_tokens"], event["cost"]) == (15, "0.000015")
    answer = await response.json()
    assert answer["id"] == event["generation_id"]
    assert answer["usage"]["cost"] == 0.000015


async def test_a_pair_that_is_too_long_is_named(served: Serving) -> None:
    """Query and document together must fit."""
    response = await served.post(PATH, body(documents=["a", "b" * 15]))
    error = (await response.json())["error"]
    assert (response.status, error["param"]) == (400, "documents[1]")
    assert error["code"] == "context_length_exceeded"


async def test_a_reranker_makes_no_vectors(served: Serving) -> None:
    """The model's name is at fault."""
    response = await served.post("/v1/embeddings", {"model": "test-model", "input": "a"})
    error = (await response.json())["error"]
    assert (response.status, error["param"]) == (400, "model")

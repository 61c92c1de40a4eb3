"""Bodies of embeddings and rerank requests, and their answers."""

from base64 import b64decode
from typing import Any

import numpy as np
import openai.types
import orjson
import pytest

from provider_core.dialects.openai.embeddings import embedding_list, parse_embeddings
from provider_core.dialects.openai.rerank import parse_rerank, rerank_results
from provider_core.errors import InvalidRequest, UnsupportedParameter
from provider_core.settings import LimitSettings
from provider_core.types import Usage

LIMITS = LimitSettings(max_inputs=3)
VECTORS = np.array([[0.25, -1.5], [1e-8, 3.0]], np.float32)
USAGE = Usage(prompt_tokens=7)


def embeddings(**fields: Any) -> dict[str, Any]:
    """A body."""
    return {"model": "m", "input": "text", **fields}


def rerank(**fields: Any) -> dict[str, Any]:
    """A body."""
    return {"model": "m", "query": "q", "documents": ["a", "b"], **fields}


def whole(**fields: Any) -> Any:
    """The answer, parsed."""
    pieces = embedding_list(VECTORS, USAGE, **{"model": "m", "encoding_format": "float", **fields})
    return orjson.loads(b"".join(pieces))


@pytest.mark.parametrize(
    ("value", "inputs", "param"),
    [
        ("a", ["a"], "input"),
        (["a", "b"], ["a", "b"], "input[{}]"),
        ([1, 2], [[1, 2]], "input"),
        ([[1], [2, 3]], [[1], [2, 3]], "input[{}]"),
    ],
)
def test_input_has_four_shapes(value: Any, inputs: list[Any], param: str) -> None:
    """A text, texts, token ids, and arrays of those; each knows what the client calls it."""
    parsed = parse_embeddings(embeddings(input=value), LIMITS)
    assert (list(parsed.inputs), parsed.param) == (inputs, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [[]]}, "input[0]"),
        ({"input": [[1], [-1]]}, "input[1]"),
        ({"input": ["a"] * 4}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [{"content": []}]}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": True}, "dimensions"),
        ({"model": ""}, "model"),
    ],
)
def test_bad_embeddings_are_named(fields: dict[str, Any], param: str) -> None:
    """Each is a 400 that says which field."""
    with pytest.raises(InvalidRequest) as caught:
        parse_embeddings(embeddings(**fields), LIMITS)
    assert caught.value.param == param


def test_floats_are_read_back_exactly() -> None:
    """The shortest digits of a float32 name it."""
    answer = whole()
    assert np.array_equal(np.array([d["embedding"] for d in answer["data"]], np.float32), VECTORS)
    assert [d["index"] for d in answer["data"]] == [0, 1]
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


def test_bug_25_base64_is_little_endian_float32() -> None:
    """What the packages of OpenAI ask for by default."""
    answer = whole(encoding_format="base64")
    data = b"".join(b64decode(d["embedding"]) for d in answer["data"])
    assert np.array_equal(np.frombuffer(data, "<f4").reshape(2, 2), VECTORS)


def test_the_answer_has_the_types_of_the_package() -> None:
    """OpenAI's own model validates it strictly."""
    openai.types.CreateEmbeddingResponse.model_validate_json(orjson.dumps(whole()), strict=True)


def test_openrouter_sees_id_and_exact_cost() -> None:
    """Beside OpenAI's fields, and only where it is asked for."""
    answer = whole(generation_id="gen-1", cost="0.0000342")
    assert (answer["id"], answer["usage"]["cost"]) == ("gen-1", 0.0000342)


def test_documents_are_texts_or_objects_with_one() -> None:
    """As OpenRouter writes them."""
    parsed = parse_rerank(rerank(documents=["a", {"text": "b"}]), LIMITS)
    assert parsed.documents == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": ""}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": ["a"] * 4}, "documents"),
        ({"documents": ["a", 1]}, "documents[1]"),
        ({"documents": [{}]}, "documents[0].text"),
        ({"top_n": 0}, "top_n"),
    ],
)
def test_bad_rerank_requests_are_named(fields: dict[str, Any], param: str) -> None:
    """Each is a 400 that says which field."""
    with pytest.raises(InvalidRequest) as caught:
        parse_rerank(rerank(**fields), LIMITS)
    assert caught.value.param == param


def test_documents_that_are_images_are_refused() -> None:
    """A known field that cannot be honoured."""
    with pytest.raises(UnsupportedParameter) as caught:
        parse_rerank(rerank(documents=[{"text": "a", "image": "data:,"}]), LIMITS)
    assert caught.value.param == "documents[0].image"


@pytest.mark.parametrize("return_documents", [None, True, False])
def test_results_point_to_their_documents(*, return_documents: bool | None) -> None:
    """By index, and with the text unless it is not wanted."""
    wanted = parse_rerank(rerank(return_documents=return_documents), LIMITS)
    answer = orjson.loads(
        rerank_results([(1, 0.5), (0, 0.25)], USAGE, wanted=wanted, generation_id="gen-1")
    )
    assert [(r["index"], r["relevance_score"]) for r in answer["results"]] == [(1, 0.5), (0, 0.25)]
    texts = [r.get("document") for r in answer["results"]]
    assert texts == ([None, None] if return_documents is False else [{"text": "b"}, {"text": "a"}])

"""`POST /v1/rerank`: the body to a request, scores to the answer, in OpenRouter's form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from provider_core.dialects.encoder_requests import RerankRequest
from provider_core.dialects.openai.embeddings import encoder_usage
from provider_core.dialects.openai.requests import MAX_USER
from provider_core.dialects.validation import bad_value, validate, wrong_type
from provider_core.errors import UnsupportedParameter
from provider_core.settings import LimitSettings
from provider_core.types import Usage


class RerankBody(BaseModel):
    """The fields of a rerank request; others are ignored."""

    model_config = ConfigDict(defer_build=True, strict=True, extra="ignore", frozen=True)

    model: str = Field(min_length=1)
    query: str = Field(min_length=1)
    documents: list[Any] = Field(min_length=1)  # `_text_of`
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRerank(RerankRequest):
    """What the client wants to see besides.

    Attributes:
        return_documents: Repeat the documents in the results.
    """

    return_documents: bool


def parse_rerank(body: dict[str, Any], limits: LimitSettings) -> ParsedRerank:
    """Read the body of `POST /v1/rerank`.

    Raises:
        InvalidRequest: A field is missing, malformed or out of range; `param` names it.
        UnsupportedParameter: A document is an image.
    """
    fields = validate(RerankBody, body)
    if len(fields.documents) > limits.max_inputs:
        raise bad_value(
            "documents",
            f"must hold at most {limits.max_inputs} documents, not {len(fields.documents)}",
        )
    return ParsedRerank(
        model=fields.model,
        query=fields.query,
        documents=[_text_of(item, index) for index, item in enumerate(fields.documents)],
        top_n=fields.top_n,
        user=None if fields.user is None else fields.user[:MAX_USER],
        return_documents=fields.return_documents is not False,
    )


def rerank_results(
    results: Sequence[tuple[int, float]],
    usage: Usage,
    *,
    wanted: ParsedRerank,
    generation_id: str | None,
    cost: str | None = None,
) -> bytes:
    """The answer.

    Args:
        results: Pairs of a document's index and its score, the best first.
        usage: What they used.
        wanted: What was asked.
        generation_id: Names the answer.
        cost: USD as plain decimal digits, for `/api/v1` only.
    """
    items: list[dict[str, Any]] = [
        {"index": index, "relevance_score": score} for index, score in results
    ]
    if wanted.return_documents:
        for item in items:
            item["document"] = {"text": wanted.documents[item["index"]]}
    return orjson.dumps(
        {
            "id": generation_id,
            "model": wanted.model,
            "results": items,
            "usage": encoder_usage(usage, cost=cost),
        }
    )


def _text_of(document: object, index: int) -> str:
    """A document is a text, or an object with one."""
    param = f"documents[{index}]"
    if isinstance(document, dict):
        if document.get("image") is not None:
            raise UnsupportedParameter(
                f"{param}.image is not supported by this model, which reads text only",
                param=f"{param}.image",
            )
        document, param = document.get("text"), f"{param}.text"
    if not isinstance(document, str):
        raise wrong_type(param, "a string", document)
    return document

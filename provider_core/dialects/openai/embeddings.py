"""`POST /v1/embeddings`: the body to a request, vectors to the answer.

OpenAI's own packages ask for `base64`, little-endian float32, unless told otherwise, and the one
for JavaScript reads an array of numbers in its place as an empty vector.
"""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, Field

from provider_core.dialects.encoder_requests import EmbeddingRequest
from provider_core.dialects.openai.prompts import parse_prompts
from provider_core.dialects.openai.requests import MAX_USER
from provider_core.dialects.validation import bad_value, validate
from provider_core.settings import LimitSettings
from provider_core.types import Usage

EncodingFormat = Literal["float", "base64"]


class EmbeddingsBody(BaseModel):
    """The fields of an embeddings request; others are ignored."""

    model_config = ConfigDict(defer_build=True, strict=True, extra="ignore", frozen=True)

    model: str = Field(min_length=1)
    input: Any  # `parse_prompts`
    encoding_format: EncodingFormat | None = None
    dimensions: int | None = Field(None, ge=1)
    input_type: str | None = None  # OpenRouter's
    user: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedEmbeddings(EmbeddingRequest):
    """What an OpenAI client asks besides."""

    encoding_format: EncodingFormat


def parse_embeddings(body: dict[str, Any], limits: LimitSettings) -> ParsedEmbeddings:
    """Read the body of `POST /v1/embeddings`.

    Raises:
        InvalidRequest: A field is missing, malformed or out of range; `param` names it.
    """
    fields = validate(EmbeddingsBody, body)
    if fields.input is None:
        raise bad_value("input", "must not be null")
    inputs = parse_prompts(fields.input, limits.max_inputs, param="input")
    is_array = isinstance(fields.input, list) and not isinstance(fields.input[0], int)
    param = "input[{}]" if is_array else "input"
    for index, text in enumerate(inputs):
        if text == "":
            raise bad_value(param.format(index), "must not be empty")
    return ParsedEmbeddings(
        model=fields.model,
        inputs=inputs,
        param=param,
        dimensions=fields.dimensions,
        input_type=fields.input_type,
        user=None if fields.user is None else fields.user[:MAX_USER],
        encoding_format=fields.encoding_format or "float",
    )


def embedding_list(
    vectors: npt.NDArray[np.float32],
    usage: Usage,
    *,
    model: str,
    encoding_format: EncodingFormat,
    generation_id: str | None = None,
    cost: str | None = None,
) -> Iterator[bytes]:
    """The answer, piece by piece: it can have millions of numbers.

    Args:
        vectors: float32 `[n, size]`, in the order of the inputs.
        usage: What they used.
        model: As the client spelled it.
        encoding_format: Of each vector.
        generation_id: For `/api/v1` only, like the next.
        cost: USD as plain decimal digits.
    """
    yield b'{"object":"list","data":['
    for index, vector in enumerate(vectors):
        item = {
            "object": "embedding",
            "index": index,
            "embedding": _base64(vector) if encoding_format == "base64" else vector,
        }
        yield (b"," if index else b"") + orjson.dumps(item, option=orjson.OPT_SERIALIZE_NUMPY)
    tail: dict[str, Any] = {"model": model, "usage": encoder_usage(usage, cost=cost)}
    if generation_id is not None:
        tail["id"] = generation_id
    yield b"]," + orjson.dumps(tail)[1:]


def encoder_usage(usage: Usage, *, cost: str | None = None) -> dict[str, Any]:
    """The `usage` object of an answer that has no completion."""
    counts: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
    }
    if cost is not None:
        counts["cost"] = orjson.Fragment(cost)
    return counts


def _base64(vector: npt.NDArray[np.float32]) -> str:
    return b64encode(vector.astype("<f4", copy=False).tobytes()).decode()

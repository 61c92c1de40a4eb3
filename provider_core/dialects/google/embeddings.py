"""`:embedContent` and `:batchEmbedContents`: the body to a request, vectors to the answer."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from provider_core.dialects.encoder_requests import EmbeddingRequest
from provider_core.dialects.google.fields import get, get_object, get_string, objects
from provider_core.dialects.validation import bad_value, wrong_type
from provider_core.errors import InvalidRequest, UnsupportedParameter
from provider_core.settings import LimitSettings
from provider_core.types import Usage

_INPUT_TYPE_BY_TASK: Mapping[str, str | None] = {
    "TASK_TYPE_UNSPECIFIED": None,
    "RETRIEVAL_QUERY": "query",
    "RETRIEVAL_DOCUMENT": "document",
    "SEMANTIC_SIMILARITY": None,
    "CLASSIFICATION": None,
    "CLUSTERING": None,
    "QUESTION_ANSWERING": "query",
    "FACT_VERIFICATION": "query",
    "CODE_RETRIEVAL_QUERY": "query",
}


def parse_embed(body: Mapping[str, Any], model: str) -> EmbeddingRequest:
    """Read the body of `:embedContent`.

    Raises:
        InvalidRequest: A field is missing, malformed or out of range; `param` names it.
        UnsupportedParameter: The content is not text.
    """
    return EmbeddingRequest(
        model=model,
        inputs=[_text(body, "")],
        param="content",
        dimensions=_dimensions(body, ""),
        input_type=_input_type(body, ""),
    )


def parse_batch_embed(
    body: Mapping[str, Any], model: str, limits: LimitSettings
) -> EmbeddingRequest:
    """Read the body of `:batchEmbedContents`, whose requests must ask for vectors of one kind.

    Raises:
        InvalidRequest: As `parse_embed`, or the requests differ in more than their content.
        UnsupportedParameter: As `parse_embed`.
    """
    values = get(body, "requests")
    if not isinstance(values, list):
        raise wrong_type("requests", "an array", values)
    if not 1 <= len(values) <= limits.max_inputs:
        raise bad_value("requests", f"must have 1 to {limits.max_inputs} items, not {len(values)}")
    requests = [(value, f"{place}.") for value, place in objects(values, "requests")]
    kinds = {(_dimensions(value, place), _input_type(value, place)) for value, place in requests}
    if len(kinds) > 1:
        raise bad_value("requests", "must have one taskType and one outputDimensionality in all")
    ((dimensions, input_type),) = kinds
    return EmbeddingRequest(
        model=model,
        inputs=[_text(value, place) for value, place in requests],
        param="requests[{}].content",
        dimensions=dimensions,
        input_type=input_type,
    )


def embedding(vectors: npt.NDArray[np.float32], usage: Usage) -> Iterator[bytes]:
    """The answer to `:embedContent`.

    Args:
        vectors: float32 `[1, size]`.
        usage: What the text used.
    """
    yield b'{"embedding":' + _vector(vectors[0]) + b"," + _counts(usage)


def embeddings(vectors: npt.NDArray[np.float32], usage: Usage) -> Iterator[bytes]:
    """The answer to `:batchEmbedContents`, piece by piece: it can have millions of numbers.

    Args:
        vectors: float32 `[n, size]`, in the order of the requests.
        usage: What the texts used.
    """
    yield b'{"embeddings":['
    for index, vector in enumerate(vectors):
        yield (b"," if index else b"") + _vector(vector)
    yield b"]," + _counts(usage)


def _vector(vector: npt.NDArray[np.float32]) -> bytes:
    return orjson.dumps({"values": vector}, option=orjson.OPT_SERIALIZE_NUMPY)


def _counts(usage: Usage) -> bytes:
    """The end of an answer's object."""
    return b'"usageMetadata":' + orjson.dumps({"promptTokenCount": usage.prompt_tokens}) + b"}"


def _text(request: Mapping[str, Any], prefix: str) -> str:
    param = f"{prefix}content"
    content = get_object(request, "content", prefix)
    if content is None:
        raise InvalidRequest(f"{param} is required", param=param, code="missing_required_parameter")
    texts = []
    for part, place in objects(content.get("parts") or [], f"{param}.parts"):
        text = get_string(part, "text", f"{place}.")
        if text is None:
            raise UnsupportedParameter(f"{place}: this model reads text only", param=place)
        texts.append(text)
    joined = "\n".join(texts)
    if not joined:
        raise bad_value(param, "must not be empty")
    return joined


def _dimensions(request: Mapping[str, Any], prefix: str) -> int | None:
    value = get(request, "outputDimensionality")
    param = f"{prefix}outputDimensionality"
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(param, "an integer", value)
    if value < 1:
        raise bad_value(param, f"must be at least 1, not {value}")
    return value


def _input_type(request: Mapping[str, Any], prefix: str) -> str | None:
    task = (get_string(request, "taskType", prefix) or "TASK_TYPE_UNSPECIFIED").upper()
    if task not in _INPUT_TYPE_BY_TASK:
        raise bad_value(f"{prefix}taskType", f"must be one of {', '.join(_INPUT_TYPE_BY_TASK)}")
    return _INPUT_TYPE_BY_TASK[task]

"""What each route is for, for people and for programs that write clients: data, no code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from provider_core.dialects.anthropic.protocol import MessagesRequest, PromptFields
from provider_core.dialects.google.protocol import GenerationConfig
from provider_core.dialects.openai.embeddings import EmbeddingsBody
from provider_core.dialects.openai.protocol import ChatCompletionRequest, CompletionRequest
from provider_core.dialects.openai.rerank import RerankBody
from provider_core.dialects.openai.responses_api.protocol import ResponseRequest
from provider_core.settings import Settings

Schema = Mapping[str, Any]
"""JSON Schema, draft 2020-12."""

BASES = ("/api/v1", "/v1beta", "/v1")
JSON = "application/json"
SSE = "text/event-stream"
HTML = "text/html"


@dataclass(frozen=True, slots=True)
class Operation:
    """A route under any base path.

    Attributes:
        summary: One line.
        body: What reads it, or its schema if no model reads it whole.
        parts: Models that `body` refers to.
        answers: Media types of what comes back.
        query: What each query parameter means.
        is_hidden: Only there to say that something is not.
    """

    summary: str
    body: type[BaseModel] | Schema | None = None
    parts: tuple[type[BaseModel], ...] = ()
    answers: tuple[str, ...] = (JSON,)
    query: Mapping[str, str] = field(default_factory=dict)
    is_hidden: bool = False


def _object(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


_OBJECT: Schema = {"type": "object"}
_OBJECTS: Schema = {"type": "array", "items": _OBJECT}
_CONTENT: Schema = _object(("parts",), role={"enum": ["user", "model"]}, parts=_OBJECTS)
_CONTENTS: Schema = {"type": "array", "items": _CONTENT, "minItems": 1}
_GENERATE = _object(
    ("contents",),
    contents=_CONTENTS,
    systemInstruction=_OBJECT,
    generationConfig={"$ref": "#/components/schemas/GenerationConfig"},
    tools=_OBJECTS,
    toolConfig=_OBJECT,
    safetySettings=_OBJECTS,
    labels=_OBJECT,
)
_EMBED = _object(
    ("content",),
    content=_CONTENT,
    taskType={"type": "string"},
    outputDimensionality={"type": "integer", "minimum": 1},
)
_MODEL_FILTERS = {
    "q": "A part of its id or name.",
    "context": "The least context length.",
    "supported_parameters": "All that it must have, separated by commas.",
    "input_modalities": "One that it must read, separated by commas.",
    "output_modalities": "One that it must make, separated by commas.",
}
_MODEL_PAGES = {
    **_MODEL_FILTERS,
    "sort": "newest, pricing-low-to-high, pricing-high-to-low or context-high-to-low.",
    "offset": "How many to leave out.",
    "limit": "How many at most.",
}
_VERB = "/models/{model}:"

OPERATIONS: Mapping[str, Operation] = {
    "POST /chat/completions": Operation(
        "Continue a conversation.", ChatCompletionRequest, answers=(JSON, SSE)
    ),
    "POST /completions": Operation("Continue a text.", CompletionRequest, answers=(JSON, SSE)),
    "POST /responses": Operation(
        "Continue a conversation, by OpenAI's newer API.", ResponseRequest, answers=(JSON, SSE)
    ),
    "POST /responses/input_tokens": Operation("Count the tokens of a response.", ResponseRequest),
    "POST /embeddings": Operation("Make vectors of texts.", EmbeddingsBody),
    "POST /rerank": Operation("Score documents by a question.", RerankBody),
    "GET /models": Operation("List the models."),
    "GET /api/v1/models": Operation("List the models.", query=_MODEL_PAGES),
    "GET /models/{model}": Operation("One model."),
    "POST /messages": Operation(
        "Continue a conversation, by Anthropic's API.", MessagesRequest, answers=(JSON, SSE)
    ),
    "POST /messages/count_tokens": Operation("Count the tokens of a message.", PromptFields),
    f"POST {_VERB}generateContent": Operation(
        "Continue a conversation, by Google's API.", _GENERATE, parts=(GenerationConfig,)
    ),
    f"POST {_VERB}streamGenerateContent": Operation(
        "The same, streamed.",
        _GENERATE,
        answers=(JSON, SSE),
        query={"alt": "`sse` for events, else one array."},
    ),
    f"POST {_VERB}countTokens": Operation(
        "Count the tokens of contents.",
        _object((), contents=_CONTENTS, generateContentRequest=_GENERATE),
    ),
    f"POST {_VERB}embedContent": Operation("Make a vector of a content.", _EMBED),
    f"POST {_VERB}batchEmbedContents": Operation(
        "Make vectors of contents.",
        _object(("requests",), requests={"type": "array", "items": _EMBED, "minItems": 1}),
    ),
    "POST /models/{model}": Operation("Refuses other methods.", is_hidden=True),
    "GET /openrouter/models": Operation(
        "The models as OpenRouter's provider monitor reads them.",
        query={"format": "2.4, or legacy for the flat form before it."},
    ),
    "GET /models/count": Operation("How many models there are.", query=_MODEL_FILTERS),
    "GET /models/{model}/endpoints": Operation("Where a model is served."),
    "GET /model/{model}": Operation("One model, as OpenRouter describes it."),
    "GET /providers": Operation("The provider."),
    "GET /generation": Operation(
        "What a generation used and cost.", query={"id": "The generation's."}
    ),
    "GET /generation/{id}": Operation("What a generation used and cost."),
    "GET /key": Operation("The key that asks, and what it spent."),
    "GET /auth/key": Operation("The key that asks, and what it spent."),
    "GET /credits": Operation("What the account spent."),
    "POST /credits": Operation("Credit an account that has paid.", _OBJECT),
    "GET /activity": Operation(
        "What the account used on each of the last 30 days.",
        query={"date": "One of them, YYYY-MM-DD."},
    ),
    "GET /keys": Operation(
        "List the keys.",
        query={"offset": "How many to leave out.", "include_disabled": "true for those, too."},
    ),
    "POST /keys": Operation("Make a key; the answer alone holds its secret.", _OBJECT),
    "GET /keys/{hash}": Operation("One key, and what it spent."),
    "PATCH /keys/{hash}": Operation("Change a key.", _OBJECT),
    "DELETE /keys/{hash}": Operation("Revoke a key."),
    "GET /livez": Operation("Whether the process is alive."),
    "GET /readyz": Operation("Whether it should get traffic, and if not, why."),
    "GET /ping": Operation("As `/readyz`."),
    "GET /health": Operation("As `/readyz`."),
    "GET /v2/health/live": Operation("As `/livez`."),
    "GET /v2/health/ready": Operation("As `/readyz`."),
    "GET /v2/models/{model}/ready": Operation("Whether a model takes requests."),
    "GET /startupz": Operation("Whether it has started, and how long that took."),
    "GET /metrics": Operation("Prometheus metrics, for this machine.", answers=("text/plain",)),
    "GET /openapi.json": Operation("This description."),
    "GET /docs/models": Operation("The models, for people.", answers=(HTML,)),
    "GET /docs/models/{model}": Operation(
        "A model's card: what it is for, what it costs, how to use it.", answers=(HTML,)
    ),
}
"""By method and path, whole or without its base; what is not here its handler describes."""


def _error(*required: str, **properties: Schema) -> Schema:
    return _object(("error",), error=_object(required, **properties))


_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_INTEGER: Schema = {"type": "integer"}
ERRORS: Mapping[str, Schema] = {
    "openaiError": _error(
        *("message", "type", "param", "code"),
        message=_TEXT,
        type=_TEXT,
        param=_TEXT_OR_NULL,
        code=_TEXT_OR_NULL,
    ),
    "openrouterError": _error(
        "code", "message", code=_INTEGER, message=_TEXT, metadata=_OBJECT, availability=_OBJECT
    ),
    "anthropicError": _object(
        ("type", "error", "request_id"),
        type={"const": "error"},
        error=_object(("type", "message"), type=_TEXT, message=_TEXT),
        request_id=_TEXT,
    ),
    "googleError": _error(
        "code", "message", "status", code=_INTEGER, message=_TEXT, status=_TEXT, details=_OBJECTS
    ),
}
"""The schemas of errors, by dialect."""

_PROBES = ("/livez", "/readyz", "/ping", "/health", "/startupz", "/v2/", "/metrics")
_LISTINGS = (
    "/docs/models",
    "/openrouter/models",
    "/api/v1/models",
    "/api/v1/model/",
    "/api/v1/providers",
)
_MODELS = ("/v1/models", "/v1beta/models")


def is_open(path: str, settings: Settings) -> bool:
    """Whether a route needs no key."""
    access = settings.access
    if not access.require_key or path.startswith((*_PROBES, "/openapi.json")):
        return True
    if path in settings.probes:
        return True
    if path.startswith(_LISTINGS):
        return not access.private_models
    return access.public_models and path.startswith(_MODELS) and ":" not in path

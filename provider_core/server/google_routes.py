"""Google's routes, under `/v1beta`, and under `/v1`, where its newest libraries call them.

A path ends in a model's id, which may hold slashes, raw or encoded, and a verb behind its last
colon: `/v1beta/models/some/model:generateContent`.
"""

from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from provider_core.billing.events import Endpoint
from provider_core.dialects.chat_request import ChatRequest
from provider_core.dialects.encoder_requests import EmbeddingRequest
from provider_core.dialects.google.answers import AnswerHead
from provider_core.dialects.google.embeddings import (
    embedding,
    embeddings,
    parse_batch_embed,
    parse_embed,
)
from provider_core.dialects.google.models import model_id, model_list, model_object
from provider_core.dialects.google.requests import parse_count, parse_generate
from provider_core.dialects.google.responses import response
from provider_core.dialects.google.stream import SseEncoder, encoder_class
from provider_core.errors import NotFound
from provider_core.server.call import Call
from provider_core.server.embeddings import EncoderPipeline, EncodeVectors
from provider_core.server.features import listed
from provider_core.server.models import ServedModel
from provider_core.server.pipeline import Pipeline
from provider_core.text.events import Event
from provider_core.types import Usage


class GoogleRoutes:
    """Content, token counts, embeddings, and the list of models under `/v1beta`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._encoders = EncoderPipeline(pipeline)
        self._limits = pipeline.settings.limits

    def add_routes(self, app: web.Application) -> None:
        """Register under both base paths; `/v1/models` itself is `OpenAIRoutes`'."""
        handlers = {
            "generateContent": self.generate,
            "streamGenerateContent": self.stream_generate,
            "countTokens": self.count_tokens,
            "embedContent": self.embed,
            "batchEmbedContents": self.embed_batch,
        }
        for base in ("/v1", "/v1beta"):
            for verb, handler in handlers.items():
                app.router.add_post(f"{base}/models/{{model:.+}}:{verb}", handler)
            app.router.add_post(f"{base}/models/{{model:.+}}", self.no_such_method)
        app.router.add_get("/v1beta/models", self.models)
        app.router.add_get("/v1beta/models/{model:.+}", self.model)

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """`:generateContent`."""
        return await self._generate(request, stream=False)

    async def stream_generate(self, request: web.Request) -> web.StreamResponse:
        """`:streamGenerateContent`."""
        return await self._generate(request, stream=True)

    async def _generate(self, request: web.Request, *, stream: bool) -> web.StreamResponse:
        call, body = await self._pipeline.enter(request)
        chat = parse_generate(body, _model(request), self._limits, stream=stream)
        encoder = encoder_class(request.query)
        call.stream_type = encoder.media_type
        return await self._pipeline.once(
            request,
            call,
            body,
            lambda: self._pipeline.chat(
                request, call, chat, lambda model: GoogleReply(call, model, chat, encoder)
            ),
        )

    async def count_tokens(self, request: web.Request) -> web.Response:
        """`:countTokens`."""
        call, body = await self._pipeline.enter(request)
        chat = parse_count(body, _model(request), self._limits)
        return _json({"totalTokens": await self._pipeline.count_prompt_tokens(call, chat)})

    async def embed(self, request: web.Request) -> web.StreamResponse:
        """`:embedContent`."""
        call, body = await self._pipeline.enter(request)
        wanted = parse_embed(body, _model(request))
        return await self._embed(
            request, call, body, wanted, lambda vectors, usage, _cost: embedding(vectors, usage)
        )

    async def embed_batch(self, request: web.Request) -> web.StreamResponse:
        """`:batchEmbedContents`."""
        call, body = await self._pipeline.enter(request)
        wanted = parse_batch_embed(body, _model(request), self._limits)
        return await self._embed(
            request, call, body, wanted, lambda vectors, usage, _cost: embeddings(vectors, usage)
        )

    async def _embed(
        self,
        request: web.Request,
        call: Call,
        body: dict[str, Any],
        wanted: EmbeddingRequest,
        encode: EncodeVectors,
    ) -> web.StreamResponse:
        return await self._pipeline.once(
            request, call, body, lambda: self._encoders.embed(request, call, wanted, encode)
        )

    async def models(self, request: web.Request) -> web.Response:
        """`GET /v1beta/models`."""
        await self._enter_models(request)
        specs = [listed(model) for model in self._pipeline.dispatcher.models]
        return _json(model_list(specs, request.query))

    async def model(self, request: web.Request) -> web.Response:
        """`GET /v1beta/models/{id}`."""
        await self._enter_models(request)
        model = self._pipeline.dispatcher.models.find(_model(request))
        return _json(model_object(listed(model)))

    async def no_such_method(self, request: web.Request) -> web.StreamResponse:
        """`POST` of anything else.

        Raises:
            NotFound: Always.
        """
        raise NotFound(f"no such method of {request.match_info['model'][:64]!r}")

    async def _enter_models(self, request: web.Request) -> None:
        if not self._pipeline.settings.access.public_models:
            await self._pipeline.identify(request)
        self._pipeline.check_serving(request)


class GoogleReply:
    """Encodes one generation as an answer or a stream of answers.

    Args:
        call: The HTTP request; its generation id names the answer.
        model: What runs.
        chat: What was asked.
        encoder: The form of a stream.
    """

    def __init__(
        self, call: Call, model: ServedModel, chat: ChatRequest, encoder: type[SseEncoder]
    ) -> None:
        wants_logprobs = chat.sampling.logprobs is not None
        self._encoder = encoder
        self._head = AnswerHead(
            response_id=call.generation_id or call.begin_generation(),
            model=chat.model,
            decode_token=model.decode_token if wants_logprobs else None,
        )

    @property
    def endpoint(self) -> Endpoint:
        """The route's name in the usage event."""
        return "generate_content"

    def stream_encoder(self, num_choices: int, _usage: Callable[[], Usage]) -> SseEncoder:
        """An encoder for a stream of so many candidates; only its last event holds counts."""
        return self._encoder(self._head, num_choices)

    def whole(self, events: list[Event], usage: Usage, _cost: str) -> bytes:
        """The whole body: a fold over the events a stream would have shown."""
        return orjson.dumps(response(self._head, events, usage))


def _model(request: web.Request) -> str:
    return model_id(request.match_info["model"])


def _json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")

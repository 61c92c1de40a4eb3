"""Anthropic's routes, under `/v1`, and under `/api/v1`, where OpenRouter has them, too."""

from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from provider_core.billing.events import Endpoint
from provider_core.dialects.anthropic.blocks import MessageHead
from provider_core.dialects.anthropic.requests import parse_count, parse_create
from provider_core.dialects.anthropic.responses import message
from provider_core.dialects.anthropic.stream import MessageStreamEncoder
from provider_core.dialects.chat_request import ChatRequest
from provider_core.server.call import Call
from provider_core.server.models import ServedModel
from provider_core.server.pipeline import Pipeline
from provider_core.text.events import Event
from provider_core.types import Usage


class AnthropicRoutes:
    """Messages and their token counts; models are listed by `OpenAIRoutes`, which shares a path."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._limits = pipeline.settings.limits

    def add_routes(self, app: web.Application) -> None:
        """Register under both base paths."""
        for base in ("/v1", "/api/v1"):
            app.router.add_post(f"{base}/messages", self.create)
            app.router.add_post(f"{base}/messages/count_tokens", self.count_tokens)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/messages`."""
        call, body = await self._pipeline.enter(request)
        return await self._pipeline.answer(request, call, body, self._create)

    async def _create(
        self, request: web.Request, call: Call, body: dict[str, Any]
    ) -> web.StreamResponse:
        chat = parse_create(body, self._limits)
        return await self._pipeline.chat(
            request, call, chat, lambda model: AnthropicReply(call, model, chat)
        )

    async def count_tokens(self, request: web.Request) -> web.Response:
        """`POST /v1/messages/count_tokens`."""
        call, body = await self._pipeline.enter(request)
        chat = parse_count(body, self._limits)
        num_tokens = await self._pipeline.count_prompt_tokens(call, chat)
        body_bytes = orjson.dumps({"input_tokens": num_tokens})
        return web.Response(body=body_bytes, content_type="application/json")


class AnthropicReply:
    """Encodes one generation as a message.

    Args:
        call: The HTTP request; its generation id names the message.
        model: What runs.
        chat: What was asked.
    """

    def __init__(self, call: Call, model: ServedModel, chat: ChatRequest) -> None:
        self._request_id = call.request_id
        generation_id = call.generation_id or call.begin_generation()
        self._head = MessageHead(
            message_id="msg_" + generation_id.removeprefix("gen-"),
            model=chat.model,
            max_model_len=model.spec.max_model_len,
            max_tokens=chat.sampling.max_tokens,
        )

    @property
    def endpoint(self) -> Endpoint:
        """The route's name in the usage event."""
        return "messages"

    def stream_encoder(self, _num_choices: int, usage: Callable[[], Usage]) -> MessageStreamEncoder:
        """An encoder for the stream; there is always one choice."""
        return MessageStreamEncoder(self._head, usage, self._request_id)

    def whole(self, events: list[Event], usage: Usage, _cost: str) -> bytes:
        """The whole body: a fold over the events a stream would have shown."""
        return orjson.dumps(message(self._head, events, usage))

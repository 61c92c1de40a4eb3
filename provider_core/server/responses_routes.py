"""OpenAI's Responses API, under `/v1`, and under `/api/v1`, where OpenRouter has it, too."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from aiohttp import web

from provider_core.billing.events import Endpoint
from provider_core.dialects.openai.responses_api import (
    Output,
    ParsedResponse,
    ResponseHead,
    ResponseStreamEncoder,
    parse_response,
    whole_response,
)
from provider_core.errors import InvalidRequest
from provider_core.server.call import Call
from provider_core.server.models import ServedModel
from provider_core.server.pipeline import Pipeline
from provider_core.text.events import Event
from provider_core.types import Usage


class ResponsesRoutes:
    """Responses; none is stored, so there is nothing to look up or to delete."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def add_routes(self, app: web.Application) -> None:
        """Register under both base paths."""
        for base in ("/v1", "/api/v1"):
            app.router.add_post(f"{base}/responses", self.create)
            app.router.add_post(f"{base}/responses/input_tokens", self.count_input_tokens)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/responses`."""
        call, body = await self._pipeline.enter(request)
        return await self._pipeline.answer(request, call, body, self._create)

    async def count_input_tokens(self, request: web.Request) -> web.Response:
        """`POST /v1/responses/input_tokens`: what `create` would bill for the same body."""
        call, body = await self._pipeline.enter(request)
        parsed = parse_response(body, self._pipeline.settings.limits)
        with _in_its_own_words():
            num_tokens = await self._pipeline.count_prompt_tokens(call, parsed)
        count = {"object": "response.input_tokens", "input_tokens": num_tokens}
        return web.Response(body=orjson.dumps(count), content_type="application/json")

    async def _create(
        self, request: web.Request, call: Call, body: dict[str, Any]
    ) -> web.StreamResponse:
        parsed = parse_response(body, self._pipeline.settings.limits)
        with _in_its_own_words():
            return await self._pipeline.chat(
                request, call, parsed, lambda model: ResponsesReply(call, model, parsed)
            )


@contextmanager
def _in_its_own_words() -> Iterator[None]:
    """Name what is wrong as this API does."""
    try:
        yield
    except InvalidRequest as exc:
        if exc.param == "messages":
            exc.param = "input"
        raise


class ResponsesReply:
    """Encodes one generation as a response.

    Args:
        call: The HTTP request; its generation id names the response.
        model: What runs.
        parsed: What was asked.
    """

    def __init__(self, call: Call, model: ServedModel, parsed: ParsedResponse) -> None:
        response_id = call.generation_id or call.begin_generation()
        self._head = ResponseHead(
            response_id=response_id,
            created_at=int(call.received_wall),
            model=parsed.model,
            echo=parsed.echo,
            openrouter=call.is_openrouter,
        )
        wants_logprobs = parsed.sampling.logprobs is not None
        self._output = Output(response_id, model.decode_token if wants_logprobs else None)

    @property
    def endpoint(self) -> Endpoint:
        """The route's name in the usage event."""
        return "responses"

    def stream_encoder(
        self, _num_choices: int, _usage: Callable[[], Usage]
    ) -> ResponseStreamEncoder:
        """An encoder for the stream; there is always one choice."""
        return ResponseStreamEncoder(self._head, self._output)

    def whole(self, events: list[Event], usage: Usage, cost: str) -> bytes:
        """The whole body: a fold over the events a stream would have shown."""
        return orjson.dumps(whole_response(self._head, self._output, events, usage, cost))

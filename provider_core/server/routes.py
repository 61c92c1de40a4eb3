"""The OpenAI dialect's routes, under `/v1`, and under `/api/v1` with OpenRouter's differences."""

from dataclasses import replace
from typing import Any

import orjson
from aiohttp import web

from provider_core.dialects.openai.json_body import parse_json_object
from provider_core.dialects.openai.models import model_item, model_list
from provider_core.dialects.openai.requests import (
    ParsedCompletion,
    ParsedRequest,
    parse_chat,
    parse_completion,
)
from provider_core.dialects.openai.sampling import check_token_ids, to_sampling_params
from provider_core.errors import Unavailable
from provider_core.lifecycle import State
from provider_core.server.admission import check_any_room
from provider_core.server.auth import Authenticator
from provider_core.server.body import check_body_headers, read_body
from provider_core.server.call import Call
from provider_core.server.dispatch import Dispatcher, Prepared
from provider_core.server.edge import CALL
from provider_core.server.models import ServedModel
from provider_core.server.replies import OpenAIReply
from provider_core.server.streaming import stream_reply, whole_reply
from provider_core.types import SamplingParams


class OpenAIRoutes:
    """Chat, completions and models."""

    def __init__(self, dispatcher: Dispatcher, authenticate: Authenticator) -> None:
        self._dispatcher = dispatcher
        self._authenticate = authenticate
        self._settings = dispatcher.settings

    def add_routes(self, app: web.Application) -> None:
        """Register under both base paths."""
        for base in ("/v1", "/api/v1"):
            app.router.add_post(f"{base}/chat/completions", self.chat_completions)
            app.router.add_post(f"{base}/completions", self.completions)
            app.router.add_get(f"{base}/models", self.models)
            app.router.add_get(f"{base}/models/{{model:.+}}", self.model)

    async def models(self, request: web.Request) -> web.Response:
        """`GET /v1/models`."""
        await self._enter_models(request)
        return _json(model_list(self._dispatcher.models.specs))

    async def model(self, request: web.Request) -> web.Response:
        """`GET /v1/models/{id}`; the id's slash may come encoded or raw."""
        await self._enter_models(request)
        model = self._dispatcher.models.find(request.match_info["model"])
        return _json(model_item(model.spec))

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        call, body = await self._enter(request)
        parsed = parse_chat(body, self._settings.limits)
        model = self._find(call, parsed)
        with model.held():
            prompt = await self._dispatcher.render_chat(
                model, parsed.messages, continue_final_message=parsed.continue_final_message
            )
            prepared = await self._prepare(call, model, parsed, [prompt])
            return await self._reply(request, call, prepared, OpenAIReply(call, model, parsed))

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/completions`."""
        call, body = await self._enter(request)
        parsed = parse_completion(body, self._settings.limits)
        model = self._find(call, parsed)
        with model.held():
            prompts = [await self._prompt_ids(model, prompt) for prompt in parsed.prompts]
            prepared = await self._prepare(call, model, parsed, prompts)
            reply = OpenAIReply(call, model, parsed, _echo(model, parsed))
            return await self._reply(request, call, prepared, reply)

    async def _enter_models(self, request: web.Request) -> None:
        access = self._settings.access
        call = request[CALL]
        is_open = not access.private_models if call.is_openrouter else access.public_models
        if not is_open:
            call.principal = await self._authenticate(request)
        self._check_serving()

    async def _enter(self, request: web.Request) -> tuple[Call, dict[str, Any]]:
        """Steps 1 to 3 of a request: who, whether there is room, and the body."""
        call = request[CALL]
        call.principal = await self._authenticate(request)
        self._check_serving()
        limits = self._settings.limits
        call.set_deadline(request.headers.get("X-Request-Deadline-Ms"), limits.request_timeout_s)
        check_body_headers(request, limits)
        check_any_room((model.engine.load() for model in self._dispatcher.models), limits)
        return call, parse_json_object(await read_body(request, limits))

    def _check_serving(self) -> None:
        lifecycle = self._dispatcher.lifecycle
        if not lifecycle.is_ready:
            code = "draining" if lifecycle.state >= State.DRAINING else "model_loading"
            raise Unavailable(f"not ready: {lifecycle.reason}", code=code, retry_after_s=1)

    def _find(self, call: Call, parsed: ParsedRequest) -> ServedModel:
        model = self._dispatcher.models.find_ready(parsed.model)
        call.model = model.spec.id
        call.user_id = parsed.user
        call.stream = parsed.stream
        return model

    async def _prompt_ids(self, model: ServedModel, prompt: str | list[int]) -> tuple[int, ...]:
        if isinstance(prompt, str):
            return await self._dispatcher.encode_prompt(model, prompt)
        check_token_ids(prompt, "prompt", model.engine.info.vocab_size)
        return tuple(prompt)

    async def _prepare(
        self,
        call: Call,
        model: ServedModel,
        parsed: ParsedRequest,
        prompts: list[tuple[int, ...]],
    ) -> Prepared:
        def sampling_for(num_prompt_tokens: int) -> SamplingParams:
            sampling = to_sampling_params(
                parsed.sampling,
                num_prompt_tokens=num_prompt_tokens,
                max_model_len=model.spec.max_model_len,
                max_output_tokens=model.spec.max_output_tokens,
                vocab_size=model.engine.info.vocab_size,
            )
            return _with_logprobs(sampling) if parsed.best_of > parsed.n else sampling

        return await self._dispatcher.prepare(
            call,
            model,
            prompts,
            sampling_for=sampling_for,
            n=parsed.n,
            best_of=parsed.best_of,
            stop=parsed.stop,
            cache_salt=parsed.cache_salt,
        )

    async def _reply(
        self,
        request: web.Request,
        call: Call,
        prepared: Prepared,
        reply: OpenAIReply,
    ) -> web.StreamResponse:
        if call.stream:
            encoder = reply.stream_encoder(len(prepared.requests))
            return await stream_reply(
                request,
                call,
                self._dispatcher,
                prepared,
                endpoint=reply.endpoint,
                encoder=encoder,
            )
        return await whole_reply(
            request, call, self._dispatcher, prepared, endpoint=reply.endpoint, encode=reply.whole
        )


def _json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _echo(model: ServedModel, parsed: ParsedCompletion) -> list[str]:
    """Each choice's prompt as text, if it is to be repeated."""
    if not parsed.echo:
        return []
    decode = model.tokenizer.decode
    texts = [prompt if isinstance(prompt, str) else decode(prompt) for prompt in parsed.prompts]
    return [text for text in texts for _ in range(parsed.n)]


def _with_logprobs(sampling: SamplingParams) -> SamplingParams:
    """Have log probabilities to choose the best by."""
    return sampling if sampling.logprobs is not None else replace(sampling, logprobs=0)

"""The OpenAI dialect's routes, under `/v1`, and under `/api/v1` with OpenRouter's differences."""

from typing import Any

import orjson
from aiohttp import web

from provider_core.dialects.anthropic.models import model_info, model_page
from provider_core.dialects.google.models import model_id
from provider_core.dialects.google.models import model_list as google_list
from provider_core.dialects.google.models import model_object as google_object
from provider_core.dialects.openai.models import model_item, model_list
from provider_core.dialects.openai.requests import ParsedCompletion, parse_chat, parse_completion
from provider_core.dialects.openrouter.models import model_object
from provider_core.dialects.openrouter.models import model_page as openrouter_page
from provider_core.dialects.sampling import check_token_ids
from provider_core.errors import InvalidRequest
from provider_core.server.call import Call
from provider_core.server.edge import CALL
from provider_core.server.features import listed
from provider_core.server.models import ServedModel
from provider_core.server.pipeline import Pipeline
from provider_core.server.replies import OpenAIReply


class OpenAIRoutes:
    """Chat, completions and models."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._dispatcher = pipeline.dispatcher
        self._settings = pipeline.settings

    def add_routes(self, app: web.Application) -> None:
        """Register under both base paths."""
        for base in ("/v1", "/api/v1"):
            app.router.add_post(f"{base}/chat/completions", self.chat_completions)
            app.router.add_post(f"{base}/completions", self.completions)
            app.router.add_get(f"{base}/models", self.models)
            app.router.add_get(f"{base}/models/{{model:.+}}", self.model)

    async def models(self, request: web.Request) -> web.Response:
        """`GET /v1/models`, in the dialect of whoever asks."""
        await self._enter_models(request)
        specs = [listed(model) for model in self._dispatcher.models]
        match request[CALL].dialect:
            case "anthropic":
                return _json(model_page(specs, request.query))
            case "openrouter":
                return _json(openrouter_page(specs, request.query))
            case "google":
                return _json(google_list(specs, request.query))
            case _:
                return _json(model_list(specs))

    async def model(self, request: web.Request) -> web.Response:
        """`GET /v1/models/{id}`; the id's slash may come encoded or raw."""
        await self._enter_models(request)
        dialect = request[CALL].dialect
        name = request.match_info["model"]
        if dialect == "google":
            name = model_id(name)
        spec = listed(self._dispatcher.models.find(name))
        match dialect:
            case "google":
                return _json(google_object(spec))
            case "anthropic":
                return _json(model_info(spec))
            case "openrouter":  # only OpenAI's clients ask this of OpenRouter
                return _json({**model_item(spec), **model_object(spec)})
            case _:
                return _json(model_item(spec))

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        call, body = await self._pipeline.enter(request)
        return await self._pipeline.answer(request, call, body, self._chat)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/completions`."""
        call, body = await self._pipeline.enter(request)
        return await self._pipeline.answer(request, call, body, self._complete)

    async def _chat(
        self, request: web.Request, call: Call, body: dict[str, Any]
    ) -> web.StreamResponse:
        parsed = parse_chat(body, self._settings.limits)
        alias = self._settings.server.reasoning_content
        try:
            return await self._pipeline.chat(
                request,
                call,
                parsed,
                lambda model: OpenAIReply(call, model, parsed, has_reasoning_content=alias),
            )
        except InvalidRequest as exc:
            if parsed.has_functions and exc.param == "tools":
                exc.param = "functions"  # as the client calls them
            raise

    async def _complete(
        self, request: web.Request, call: Call, body: dict[str, Any]
    ) -> web.StreamResponse:
        parsed = parse_completion(body, self._settings.limits)
        model = self._pipeline.find(call, parsed)

        def make_reply(model: ServedModel) -> OpenAIReply:
            return OpenAIReply(call, model, parsed, _echo(model, parsed))

        with model.held():
            repeated = await self._pipeline.repeat(request, call, model, make_reply)
            if repeated is not None:
                return repeated
            prompts = [await self._prompt_ids(model, prompt) for prompt in parsed.prompts]
            prepared = await self._pipeline.prepare(call, model, parsed, prompts)
            return await self._pipeline.reply(request, call, prepared, make_reply(model))

    async def _enter_models(self, request: web.Request) -> None:
        access = self._settings.access
        is_open = not access.private_models if _is_openrouter(request) else access.public_models
        if not is_open:
            await self._pipeline.identify(request)
        self._pipeline.check_serving(request)

    async def _prompt_ids(self, model: ServedModel, prompt: str | list[int]) -> tuple[int, ...]:
        if isinstance(prompt, str):
            return await self._dispatcher.encode_prompt(model, prompt)
        check_token_ids(prompt, "prompt", model.engine.info.vocab_size)
        return tuple(prompt)


def _is_openrouter(request: web.Request) -> bool:
    return request[CALL].is_openrouter


def _json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _echo(model: ServedModel, parsed: ParsedCompletion) -> list[str]:
    """Each choice's prompt as text, if it is to be repeated."""
    if not parsed.echo:
        return []
    decode = model.tokenizer.decode
    texts = [prompt if isinstance(prompt, str) else decode(prompt) for prompt in parsed.prompts]
    return [text for text in texts for _ in range(parsed.n)]

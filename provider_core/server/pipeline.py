"""What every generating route does, whichever dialect it speaks: who, room, body, prompt, reply.

A route of a dialect reads the body with its own parser and gives the result to `Pipeline` with
something that encodes the answer.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import orjson
from aiohttp import web

from provider_core.dialects.chat_request import ChatRequest, RequestFields
from provider_core.dialects.json_body import parse_json_object
from provider_core.dialects.openrouter.compression import (
    count_turns,
    reply_room,
    without_middle,
)
from provider_core.dialects.openrouter.routing import check_preferences
from provider_core.dialects.sampling import to_sampling_params
from provider_core.errors import (
    ContextLengthExceeded,
    PermissionDenied,
    Unavailable,
    UnsupportedParameter,
)
from provider_core.interfaces import RenderedPrompt
from provider_core.lifecycle import State
from provider_core.server.admission import check_any_room
from provider_core.server.attempts import Serve, first_that_serves
from provider_core.server.auth import Authenticator
from provider_core.server.body import check_body_headers, read_body
from provider_core.server.call import Call
from provider_core.server.chat_plan import ReplyPlan
from provider_core.server.dispatch import Dispatcher
from provider_core.server.edge import CALL
from provider_core.server.generation_run import Prepared
from provider_core.server.idempotency import (
    REPLAYED_HEADER,
    IdempotencyKeys,
    StoredAnswer,
    digest_of,
)
from provider_core.server.images import ImageReader, PromptImages
from provider_core.server.in_process import IN_PROCESS
from provider_core.server.models import ServedModel
from provider_core.server.replay import Reply, replay
from provider_core.server.response_cache import ResponseCache
from provider_core.server.streaming import stream_reply, whole_reply
from provider_core.settings import Settings
from provider_core.types import ModelSpec, SamplingParams

_Encoded = tuple[RenderedPrompt, tuple[int, ...]]


class Pipeline:
    """One per server, shared by all dialects' routes.

    Args:
        dispatcher: Runs generations.
        authenticate: Says who is calling.
    """

    def __init__(self, dispatcher: Dispatcher, authenticate: Authenticator) -> None:
        self.dispatcher = dispatcher
        self._authenticate = authenticate
        limits = dispatcher.settings.limits
        self._images = ImageReader(dispatcher.settings.images, wait_s=limits.queue_wait_s)
        self._cache = ResponseCache(dispatcher.settings.response_cache.max_bytes)
        self._keys = IdempotencyKeys(dispatcher.settings.idempotency)

    @property
    def settings(self) -> Settings:
        """All of them."""
        return self.dispatcher.settings

    async def close(self, _: web.Application) -> None:
        """Close what it opened to fetch images."""
        await self._images.close()

    async def identify(self, request: web.Request) -> Call:
        """Say who calls, for a route that needs a key and no model."""
        call = request[CALL]
        call.principal = await self._authenticate(request)
        return call

    async def enter(self, request: web.Request) -> tuple[Call, dict[str, Any]]:
        """Steps 1 to 3 of a request: who, whether there is room, and the body.

        Raises:
            ProviderError: No key, no room, not ready, or a body that is no JSON object.
        """
        call = await self.identify(request)
        if call.principal.scope != "inference":
            raise PermissionDenied("a management key cannot run models")
        await self.dispatcher.quotas.enter(call)
        self.check_serving(request)
        limits = self.settings.limits
        call.set_deadline(request.headers.get("X-Request-Deadline-Ms"), limits.request_timeout_s)
        check_body_headers(request, limits)
        check_any_room((model.engine.load() for model in self.dispatcher.models), limits)
        return call, parse_json_object(await read_body(request, limits))

    async def answer(
        self,
        request: web.Request,
        call: Call,
        body: dict[str, Any],
        serve: Serve,
        *,
        can_repeat: bool = True,
    ) -> web.StreamResponse:
        """Answer what `enter` returned, by the first of its models that can.

        Args:
            request: The request to answer.
            call: What `enter` returned for it.
            body: The same.
            serve: Tried with each model.
            can_repeat: Whether `serve` looks into the cache.

        Raises:
            ProviderError: None of them can; nothing was sent.
        """
        cache = self._cache if can_repeat else None
        return await self.once(
            request, call, body, lambda: first_that_serves(request, call, body, serve, cache)
        )

    async def once(
        self,
        request: web.Request,
        call: Call,
        body: dict[str, Any],
        answer: Callable[[], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Answer a request, or repeat what it was answered under the same idempotency key.

        Args:
            request: The request to answer.
            call: What `enter` returned for it.
            body: The same.
            answer: Answers it the first time.

        Raises:
            Conflict: The key stands for another request, or for one that still runs.
            ProviderError: As `answer`.
        """
        key = call.idempotency_key
        if key is None or not self._keys.is_enabled:
            return await answer()
        form = request.query.get("alt", "")  # of Google's streams; bodies and paths say the rest
        question = digest_of(request.path, form, orjson.dumps(body))
        claim = self._keys.claim(call.principal.api_key_id, key, question)
        if isinstance(claim, StoredAnswer):
            self.dispatcher.quotas.forgive(call)
            call.generation_id = claim.generation_id
            return web.Response(body=claim.body, headers={**claim.headers, REPLAYED_HEADER: "true"})
        call.claim = claim
        try:
            return await answer()
        finally:
            claim.release()

    def check_serving(self, request: web.Request) -> None:
        """Refuse while the server starts or drains, unless a worker asks for what it has taken.

        Raises:
            Unavailable: It does.
        """
        lifecycle = self.dispatcher.lifecycle
        if not (lifecycle.is_serving or request.app[IN_PROCESS].lets_finish(request)):
            code = "draining" if lifecycle.state >= State.DRAINING else "model_loading"
            raise Unavailable(f"not ready: {lifecycle.reason}", code=code, retry_after_s=1)

    def find(self, call: Call, fields: RequestFields) -> ServedModel:
        """Look up the model of a request and note for the logs what it asked.

        Raises:
            ModelNotFound: Nobody of that name.
            NoEndpoints: The request's preferences rule it out.
            PermissionDenied: Its key may not use this model.
            Unavailable: The model takes no requests now.
        """
        model = self.dispatcher.models.find_ready(fields.model)
        self.check_wanted(call, model.spec)
        call.model = model.spec.id
        call.user_id = fields.user
        call.stream = fields.stream
        return model

    def check_wanted(self, call: Call, spec: ModelSpec, *, num_prompt_tokens: int = 0) -> None:
        """See whether a request wants this model of this provider.

        Prices may depend on the number of its prompt tokens, 0 while they are not counted.

        Raises:
            NoEndpoints: Its preferences rule it out.
            PermissionDenied: Its key may not use this model.
        """
        allowed = call.principal.models
        if allowed is not None and spec.id not in allowed:
            raise PermissionDenied(
                f"this API key may not use the model {spec.id!r}",
                param="model",
                code="model_not_allowed",
            )
        preferences = call.routing.preferences
        if preferences is not None:
            provider, unix_s = self.settings.provider, call.received_wall
            check_preferences(preferences, spec, provider, unix_s, num_prompt_tokens)

    async def chat(
        self,
        request: web.Request,
        call: Call,
        chat: ChatRequest,
        make_reply: Callable[[ServedModel], Reply],
    ) -> web.StreamResponse:
        """Answer a conversation.

        Args:
            request: The request to answer.
            call: What `enter` returned for it.
            chat: What its body asks.
            make_reply: Encodes the answer of the model that was found.

        Raises:
            ProviderError: It cannot be served; nothing was sent.
        """
        model = self.find(call, chat)
        with model.held():
            repeated = await self.repeat(request, call, model, make_reply)
            if repeated is not None:
                return repeated
            prompt, prompt_ids, images = await self._write_prompt(
                call, model, chat, compresses=call.routing.compresses
            )
            with closing(images):
                sampling = _complete_sampling(model, chat, len(prompt_ids))
                plan = await self.dispatcher.planner.plan(model, chat, prompt, sampling.max_tokens)
                prepared = await self.prepare(
                    call, model, chat, [prompt_ids], plan=plan, images=images
                )
                return await self.reply(request, call, prepared, make_reply(model))

    async def repeat(
        self,
        request: web.Request,
        call: Call,
        model: ServedModel,
        make_reply: Callable[[ServedModel], Reply],
    ) -> web.StreamResponse | None:
        """Answer from the cache; `None` if that was not asked for, or there is nothing in it."""
        stored = None if call.cache_slot is None else call.cache_slot.find(model.load_id)
        if stored is None:
            return None
        call.begin_generation()
        self.dispatcher.quotas.forgive(call)
        return await replay(request, call, self.dispatcher, model, stored, make_reply(model))

    async def count_prompt_tokens(self, call: Call, chat: ChatRequest) -> int:
        """The prompt tokens that a conversation would be billed for; nothing runs.

        Raises:
            ProviderError: The conversation could not be served.
        """
        model = self.find(call, chat)
        with model.held():
            _, prompt_ids, images = await self._write_prompt(call, model, chat)
            images.close()
            return len(prompt_ids)

    async def _write_prompt(
        self, call: Call, model: ServedModel, chat: ChatRequest, *, compresses: bool = False
    ) -> tuple[RenderedPrompt, tuple[int, ...], PromptImages]:
        """The prompt as text, as ids, and what it shows beside them."""
        self._images.check(model, chat.images)
        try:
            prompt, prompt_ids = await self._encode(model, chat)
        except ContextLengthExceeded as error:
            if not compresses or chat.images:  # an image belongs to its message
                raise
            prompt, prompt_ids = await self._encode_without_middle(model, chat, error)
        prompt_ids, images = await self._images.read(
            model, chat.images, prompt_ids, deadline_s=call.deadline_s
        )
        return prompt, prompt_ids, images

    async def _encode(self, model: ServedModel, chat: ChatRequest) -> _Encoded:
        prompt = await self.dispatcher.planner.render(model, chat)
        return prompt, await self.dispatcher.encode_chat(model, prompt)

    async def _encode_without_middle(
        self, model: ServedModel, chat: ChatRequest, error: ContextLengthExceeded
    ) -> _Encoded:
        """Keep as many turns as fit, found by halving; `error` if one alone is too long."""
        limit = model.spec.max_model_len
        room = reply_room(chat.sampling.max_tokens, limit)
        found: _Encoded | None = None
        low, high = 1, count_turns(chat.messages) - 1
        while low <= high:
            middle = (low + high) // 2
            shorter = replace(chat, messages=without_middle(chat.messages, middle))
            try:
                encoded = await self._encode(model, shorter)
                fits = len(encoded[1]) + room <= limit
            except ContextLengthExceeded:
                fits = False
            if fits:
                found, low = encoded, middle + 1
            else:
                high = middle - 1
        if found is None:
            raise error
        return found

    async def prepare(
        self,
        call: Call,
        model: ServedModel,
        fields: RequestFields,
        prompts: Sequence[tuple[int, ...]],
        *,
        plan: ReplyPlan | None = None,
        images: PromptImages | None = None,
    ) -> Prepared:
        """Complete the sampling and pass the second gate; see `Dispatcher.prepare`."""

        def sampling_for(num_prompt_tokens: int) -> SamplingParams:
            sampling = _complete_sampling(model, fields, num_prompt_tokens)
            return _with_logprobs(model, sampling) if fields.best_of > fields.n else sampling

        self.check_wanted(call, model.spec, num_prompt_tokens=sum(map(len, prompts)))
        return await self.dispatcher.prepare(
            call,
            model,
            prompts,
            sampling_for=sampling_for,
            n=fields.n,
            best_of=fields.best_of,
            stop=fields.stop,
            cache_salt=fields.cache_salt,
            plan=plan,
            images=images,
        )

    async def reply(
        self,
        request: web.Request,
        call: Call,
        prepared: Prepared,
        reply: Reply,
    ) -> web.StreamResponse:
        """Run what was prepared and answer, streamed or whole."""
        if call.stream:
            return await stream_reply(
                request,
                call,
                self.dispatcher,
                prepared,
                endpoint=reply.endpoint,
                make_encoder=reply.stream_encoder,
            )
        return await whole_reply(
            request, call, self.dispatcher, prepared, endpoint=reply.endpoint, encode=reply.whole
        )


def _complete_sampling(
    model: ServedModel, fields: RequestFields, num_prompt_tokens: int
) -> SamplingParams:
    return to_sampling_params(
        fields.sampling,
        num_prompt_tokens=num_prompt_tokens,
        max_model_len=model.spec.max_model_len,
        max_output_tokens=model.spec.max_output_tokens,
        vocab_size=model.engine.info.vocab_size,
        unsupported_params=model.spec.unsupported_params,
    )


def _with_logprobs(model: ServedModel, sampling: SamplingParams) -> SamplingParams:
    """Have log probabilities to choose the best by.

    Raises:
        UnsupportedParameter: The model's engine gives none.
    """
    if "logprobs" in model.spec.unsupported_params:
        raise UnsupportedParameter("best_of is not supported by this model", param="best_of")
    return sampling if sampling.logprobs is not None else replace(sampling, logprobs=0)

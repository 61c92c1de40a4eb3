"""Answering with a generation: as a stream of events, or whole, as a fold over the same events."""

import asyncio
from collections.abc import Callable
from typing import ClassVar, Protocol

from aiohttp import web

from provider_core.billing.events import Endpoint
from provider_core.billing.money import format_money
from provider_core.server.call import Call
from provider_core.server.dispatch import Dispatcher
from provider_core.server.generation_run import Prepared
from provider_core.server.sending import send_whole
from provider_core.server.sse import SseWriter, stream_headers
from provider_core.settings import LimitSettings
from provider_core.text.events import Event, Finished
from provider_core.text.generation import Generation
from provider_core.types import Usage


class StreamEncoder(Protocol):
    """A dialect's bytes for each event; every return is whole events, maybe none.

    Attributes:
        keepalive: Sent in silence: what this dialect's clients skip.
    """

    keepalive: ClassVar[bytes]

    def first(self, index: int) -> bytes:
        """What opens a choice; maybe nothing."""
        ...

    def encode(self, event: Event) -> bytes:
        """One event."""
        ...

    def end(self, usage: Usage, cost: str | None = None) -> bytes:
        """The end of a stream that went well."""
        ...

    def error(
        self, error: BaseException, usage: Usage | None = None, cost: str | None = None
    ) -> bytes:
        """The end of one that did not."""
        ...


MakeEncoder = Callable[[int, Callable[[], Usage]], StreamEncoder]
"""For so many choices; the second argument tells the counts so far, from the first event on."""


async def stream_reply(
    request: web.Request,
    call: Call,
    dispatcher: Dispatcher,
    prepared: Prepared,
    *,
    endpoint: Endpoint,
    make_encoder: MakeEncoder,
) -> web.StreamResponse:
    """Run a generation and stream it.

    Headers leave with the first event, or after `sse_keepalive_s` of silence, in the queue or while
    the model looks at images: a failure before that has a status of its own. The usage record is on
    disk before the last bytes leave.

    Raises:
        ProviderError: The generation failed before its first event.
    """
    stream = _Stream(request, call, dispatcher.settings.limits, make_encoder, prepared)
    encoder = stream.encoder
    run = dispatcher.start(call, prepared, endpoint, stream.on_event)
    try:
        await stream.open(run.generation, lambda: run.error)
        await run.wait()
        if run.generation.is_refused:
            raise ConnectionResetError("the client is gone")  # noqa: TRY301 - settled below
        record = run.settle()
        cost = format_money(record.cost)
        if run.error is not None:
            last = encoder.error(run.error, record.usage, cost)
        else:
            last = encoder.end(record.usage, cost)
        try:
            await run.until_durable()
        finally:  # billed, whether or not the client waits for the end: asked again, it gets it
            if call.claim is not None and record.status == "ok":
                call.claim.keep(record.generation_id, last, stream_headers(call.stream_type))
        await stream.writer.close(last)
        run.conclude(is_sent=True)
    except BaseException as exc:
        run.settle(exc)
        raise
    finally:
        run.conclude(is_sent=False)
        stream.writer.abandon()
        call.num_sent_bytes = stream.writer.num_sent_bytes
    return stream.writer.response


class _Stream:
    """Carries events from the engine's callback to the writer.

    While headers are on their way, or a client does not read, the generation is paused: it holds
    ids, and they become events, and count as delivered, when they can be written.
    """

    def __init__(
        self,
        request: web.Request,
        call: Call,
        limits: LimitSettings,
        make_encoder: MakeEncoder,
        prepared: Prepared,
    ) -> None:
        self._generation: Generation | None = None
        self._num_prompt_tokens = len(prepared.requests[0].prompt_token_ids)
        self._num_choices = len(prepared.requests)
        self.encoder = make_encoder(self._num_choices, self._usage)
        self.writer = SseWriter(
            request,
            media_type=call.stream_type,
            keepalive=self.encoder.keepalive,
            keepalive_s=limits.sse_keepalive_s,
            on_full=self._set_paused,
        )
        self._patience_s = limits.sse_keepalive_s
        self._encode = self.encoder.encode
        write = self.writer.write
        self._write = write if call.claim is None else call.claim.copied(write)
        self._has_begun = asyncio.Event()

    def on_event(self, event: Event) -> bool:
        """Send one event; `False` once the client is gone."""
        if not self._has_begun.is_set():
            self._begin()
        if type(event) is Finished and event.finish_reason in {"abort", "error"}:
            return True  # `encoder.error` says it, for all choices at once
        return self._write(self._encode(event))

    async def open(self, generation: Generation, failure: Callable[[], Exception | None]) -> None:
        """Send the headers with the first event, or when there was none for too long.

        Raises:
            Exception: The generation failed first; nothing was sent.
        """
        self._generation = generation
        if self._has_begun.is_set():
            generation.pause()
        try:
            async with asyncio.timeout(self._patience_s):
                await self._has_begun.wait()
        except TimeoutError:
            if not self._has_begun.is_set():  # or the first event came with the time's end
                self._begin()
        error = failure()
        if error is not None:
            raise error
        await self.writer.open()  # resumes the generation, unless the client does not read

    def _usage(self) -> Usage:
        if self._generation is None:  # an engine that answers while it takes the request
            return Usage(prompt_tokens=self._num_prompt_tokens)
        return self._generation.usage

    def _begin(self) -> None:
        self._has_begun.set()
        for index in range(self._num_choices):
            self._write(self.encoder.first(index))
        if self._generation is not None:
            self._generation.pause()

    def _set_paused(self, is_paused: bool) -> None:  # noqa: FBT001 - the callback's one argument
        if self._generation is None:
            return
        if is_paused:
            self._generation.pause()
        else:
            self._generation.resume()


async def whole_reply(
    request: web.Request,
    call: Call,
    dispatcher: Dispatcher,
    prepared: Prepared,
    *,
    endpoint: Endpoint,
    encode: Callable[[list[Event], Usage, str], bytes],
) -> web.Response:
    """Run a generation to its end and answer at once, when the usage record is on disk.

    Args:
        request: The request to answer.
        call: The HTTP request.
        dispatcher: What runs it.
        prepared: What to run.
        endpoint: The route's name in the usage event.
        encode: Folds the events into a body, given the usage and its exact cost.

    Raises:
        ProviderError: The generation failed.
    """
    events: list[Event] = []
    run = dispatcher.start(call, prepared, endpoint, events.append)

    async def make_body() -> bytes:
        await run.wait()
        if run.error is not None:
            raise run.error
        record = run.settle()
        return encode(events, record.usage, format_money(record.cost))

    return await send_whole(request, call, run, make_body)

"""Answering with a generation: as a stream of events, or whole, as a fold over the same events."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from provider_core.billing.events import Endpoint
from provider_core.billing.money import format_money
from provider_core.server.call import Call
from provider_core.server.dispatch import Dispatcher, Prepared
from provider_core.server.sse import SseWriter
from provider_core.settings import LimitSettings
from provider_core.text.events import Event, Finished, TextDelta
from provider_core.types import Usage


class StreamEncoder(Protocol):
    """A dialect's bytes for each event; every return is whole events, maybe none."""

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


async def stream_reply(
    request: web.Request,
    call: Call,
    dispatcher: Dispatcher,
    prepared: Prepared,
    *,
    endpoint: Endpoint,
    encoder: StreamEncoder,
) -> web.StreamResponse:
    """Run a generation and stream it.

    Headers leave with the first event, or after `sse_keepalive_s` of silence: a failure before
    that has a status of its own. The usage record is written before the last bytes leave.

    Raises:
        ProviderError: The generation failed before its first event.
    """
    limits = dispatcher.settings.limits
    stream = _Stream(request, limits, encoder, len(prepared.requests))
    run = dispatcher.start(call, prepared, endpoint, stream.on_event)
    try:
        await stream.wait_for_first(limits.sse_keepalive_s)
        if run.error is not None:
            raise run.error  # noqa: TRY301 - one place settles whatever went wrong
        await stream.writer.open()
        call.has_begun_stream = True
        await run.wait()
        late = stream.take_backlog()
        record = run.settle()
        if run.error is not None:
            last = encoder.error(run.error, record.usage, format_money(record.cost))
        else:
            last = encoder.end(record.usage, format_money(record.cost))
        await stream.writer.close(late + last)
    except BaseException as exc:
        run.settle(exc)
        raise
    finally:
        stream.writer.abandon()
        call.num_sent_bytes = stream.writer.num_sent_bytes
    return stream.writer.response


class _Stream:
    """Carries events from the engine's callback to the writer.

    A client that does not read gets its text later: it waits here, joined, and not as the many
    times larger chunks it would be on the wire.
    """

    def __init__(
        self,
        request: web.Request,
        limits: LimitSettings,
        encoder: StreamEncoder,
        num_choices: int,
    ) -> None:
        self.writer = SseWriter(
            request,
            keepalive_s=limits.sse_keepalive_s,
            stall_s=limits.write_stall_s,
            buffer_limit=limits.write_buffer_bytes,
            on_drained=self._flush,
        )
        self._encoder = encoder
        self._encode = encoder.encode
        self._write = self.writer.write
        self._num_choices = num_choices
        self._has_begun = asyncio.Event()
        self._backlog: list[Event] = []

    def on_event(self, event: Event) -> bool:
        """Send one event, or keep it; `False` once the client is gone."""
        if not self._has_begun.is_set():
            self._begin()
        if type(event) is Finished and event.finish_reason in {"abort", "error"}:
            return True  # `encoder.error` says it, for all choices at once
        if self.writer.is_full or self._backlog:
            _append_joined(self._backlog, event)
            return True
        data = self._encode(event)
        return not data or self._write(data)

    async def wait_for_first(self, patience_s: float) -> None:
        """Until there is an event, or for so long."""
        try:
            async with asyncio.timeout(patience_s):
                await self._has_begun.wait()
        except TimeoutError:
            return

    def take_backlog(self) -> bytes:
        """What is left to send once no more events come."""
        late = b"".join(map(self._encode, self._backlog))
        self._backlog.clear()
        return late

    def _begin(self) -> None:
        self._has_begun.set()
        for index in range(self._num_choices):
            self._write(self._encoder.first(index))

    def _flush(self) -> None:
        while self._backlog and not self.writer.is_full:
            self._write(self._encode(self._backlog.pop(0)))


def _append_joined(backlog: list[Event], event: Event) -> None:
    """Queue an event, joining text to text of the same choice."""
    last = backlog[-1] if backlog else None
    if (
        isinstance(event, TextDelta)
        and isinstance(last, TextDelta)
        and event.index == last.index
        and not (event.logprobs or last.logprobs)
    ):
        last.text += event.text
    else:
        backlog.append(event)


async def whole_reply(
    call: Call,
    dispatcher: Dispatcher,
    prepared: Prepared,
    *,
    endpoint: Endpoint,
    encode: Callable[[list[Event], Usage, str], bytes],
) -> web.Response:
    """Run a generation to its end and answer at once.

    Args:
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
    try:
        await run.wait()
        if run.error is not None:
            raise run.error  # noqa: TRY301 - one place settles whatever went wrong
        record = run.settle()
        body = encode(events, record.usage, format_money(record.cost))
    except BaseException as exc:
        run.settle(exc)
        raise
    return web.Response(body=body, content_type="application/json")

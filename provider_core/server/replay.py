"""Giving an answer from the cache: the same events through the same encoder, and nothing billed."""

from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from provider_core.billing.events import Endpoint
from provider_core.errors import ProviderError
from provider_core.server.call import Call
from provider_core.server.dispatch import Dispatcher
from provider_core.server.models import ServedModel
from provider_core.server.response_cache import StoredReply
from provider_core.server.sending import send_whole
from provider_core.server.sse import stream_headers
from provider_core.server.streaming import StreamEncoder
from provider_core.text.events import Event
from provider_core.types import Usage, UsageRecord

_FREE = "0"  # USD


class Reply(Protocol):
    """A dialect's encoding of one answer."""

    @property
    def endpoint(self) -> Endpoint:
        """The route's name in the usage event."""
        ...

    def stream_encoder(self, num_choices: int, usage: Callable[[], Usage]) -> StreamEncoder:
        """An encoder for a stream of so many choices.

        Args:
            num_choices: Their indexes count from 0.
            usage: Tells the counts so far; the prompt's are final from the first event on.
        """
        ...

    def whole(self, events: list[Event], usage: Usage, cost: str) -> bytes:
        """The whole body: a fold over the events a stream would have shown."""
        ...


async def replay(
    request: web.Request,
    call: Call,
    dispatcher: Dispatcher,
    model: ServedModel,
    stored: StoredReply,
    reply: Reply,
) -> web.StreamResponse:
    """Answer with what is stored: a new id and time, no usage, a bill of nothing (R12).

    Args:
        request: The request to answer.
        call: The same; its generation id is that of `reply`.
        dispatcher: Keeps the account.
        model: What would have run.
        stored: What it said.
        reply: Encodes it as this client asks.
    """
    run = _Replayed(dispatcher, call, model, stored, reply.endpoint)

    async def make_body() -> bytes:
        return reply.whole(list(stored.events), Usage(), _FREE)

    if not call.stream:
        return await send_whole(request, call, run, make_body)
    try:
        run.settle()
        await run.until_durable()
        response = await _stream(request, call, stored, reply)
        run.conclude(is_sent=True)
    finally:
        run.conclude(is_sent=False)
    return response


async def _stream(
    request: web.Request, call: Call, stored: StoredReply, reply: Reply
) -> web.StreamResponse:
    num_choices = len(stored.finishes)
    encoder = reply.stream_encoder(num_choices, Usage)
    headers = stream_headers(call.stream_type)
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    pieces = [encoder.first(index) for index in range(num_choices)]
    pieces += map(encoder.encode, stored.events)
    for piece in filter(None, pieces):
        await response.write(piece)
    last = encoder.end(Usage(), _FREE)
    await response.write_eof(last)
    call.num_sent_bytes = sum(map(len, pieces)) + len(last)
    if call.claim is not None and call.generation_id is not None:
        call.claim.keep(call.generation_id, b"".join([*pieces, last]), headers)
    return response


class _Replayed:
    """An account of an answer that nobody had to generate; an `OpenRun`."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        call: Call,
        model: ServedModel,
        stored: StoredReply,
        endpoint: Endpoint,
    ) -> None:
        self._dispatcher = dispatcher
        self._call = call
        self._stored = stored
        self.usage = Usage()
        self._settlement = dispatcher.open_settlement(call, model, endpoint, n=len(stored.finishes))
        dispatcher.runs.add(self)

    @property
    def generation_id(self) -> str:
        """What its usage event calls it."""
        return self._settlement.generation_id

    def cut(self, error: ProviderError) -> None:
        """Nothing runs that could be cut."""

    def settle(self, cause: BaseException | None = None) -> UsageRecord:  # noqa: ARG002 - an OpenRun's
        """Give the usage line to the ledger; the first call decides."""
        known = self._settlement.record
        if known is not None:
            return known
        first = self._stored.finishes[0]
        reason = first.finish_reason
        record = self._settlement.settle(
            status="ok",
            usage=self.usage,
            finish_reason=None if reason == "abort" else reason,
            native_finish_reason=first.native_finish_reason,
            cache_source_id=self._stored.generation_id,
        )
        self._call.record = record
        self._dispatcher.finished(self, record)
        return record

    async def until_durable(self) -> None:
        """Wait for the usage line to be on disk."""
        await self._settlement.until_durable()

    def conclude(self, *, is_sent: bool) -> None:
        """Say whether the end of the answer was handed to the transport."""
        self._settlement.conclude(is_sent=is_sent)

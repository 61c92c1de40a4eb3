"""One generation of a decoder, from submission to settlement."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from provider_core.billing.events import ClientFinishReason
from provider_core.billing.settlement import Settlement
from provider_core.errors import BackendError, ProviderError
from provider_core.server.call import Call
from provider_core.server.images import PromptImages
from provider_core.server.looking import ImageLooker
from provider_core.server.models import ServedModel
from provider_core.server.open_run import OpenRun, outcome_of
from provider_core.text.events import Event, Finished
from provider_core.text.generation import Generation
from provider_core.text.output_reader import OutputFormat
from provider_core.types import GenerationRequest, Usage, UsageRecord

log = structlog.get_logger()

Seen = tuple[tuple[int, memoryview], ...]
"""See `GenerationRequest.prompt_embeddings`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request that will be served: everything that could refuse it has agreed."""

    model: ServedModel
    requests: tuple[GenerationRequest, ...]
    stop: tuple[str, ...]
    output: OutputFormat | None
    num_choices: int  # generated of each prompt
    num_returned: int  # of them all
    images: PromptImages  # shown to them


class Run:
    """One generation. Whoever makes one must settle it.

    Args:
        call: The HTTP request, admitted.
        prepared: What to run.
        on_event: Told of each event on the loop's thread; `False` says that the client is gone.
        looker: Shows models what prompts show.
        open_settlement: Admits it, at today's prices.
        on_settled: Told once, when its usage line is with the ledger.

    Attributes:
        error: Why it failed, once it did; a client that left is no failure.
        finish: The end of the first choice.
    """

    def __init__(
        self,
        call: Call,
        prepared: Prepared,
        on_event: Callable[[Event], bool | None],
        *,
        looker: ImageLooker,
        open_settlement: Callable[[], Settlement],
        on_settled: Callable[[OpenRun, UsageRecord], None],
    ) -> None:
        self._call = call
        self._prepared = prepared
        self._on_event = on_event
        self._looker = looker
        self._on_settled = on_settled
        self.error: Exception | None = None
        self.finish: Finished | None = None
        self._looking: asyncio.Task[Seen] | None = None
        self.generation = Generation(
            prepared.model.engine,
            prepared.model.tokenizer,
            prepared.requests,
            stop=prepared.stop,
            num_choices=prepared.num_choices,
            output=prepared.output,
            on_event=self._observe,
        )
        self._settlement = open_settlement()  # last: from here somebody must settle

    @property
    def generation_id(self) -> str:
        """What its usage event calls it."""
        return self._settlement.generation_id

    @property
    def usage(self) -> Usage:
        """What it has used, now."""
        return self.generation.usage

    def start(self) -> None:
        """Submit every sequence; if the prompt shows something, when the model has looked at it.

        Until then they count in the model's `num_looking`. A look that fails ends the generation
        as `cut` does.

        Raises:
            ProviderError: The engine takes nothing.
        """
        prepared = self._prepared
        if not prepared.images.count:
            self.generation.start()
            return
        prepared.model.num_looking += len(prepared.requests)
        self._looking = asyncio.create_task(
            self._looker.look(prepared.model, prepared.images, deadline_s=self._call.deadline_s)
        )
        self._looking.add_done_callback(self._submit)

    def _submit(self, looking: asyncio.Task[Seen]) -> None:
        self._prepared.model.num_looking -= len(self._prepared.requests)
        if looking.cancelled():  # it is settled
            return
        try:
            self.generation.start(looking.result())
        except ProviderError as exc:
            self.cut(exc)
        except Exception as exc:
            log.exception("look.failed", generation_id=self.generation_id)
            failure = BackendError("the model failed to look at an image")
            failure.__cause__ = exc
            self.cut(failure)

    def _observe(self, event: Event) -> bool | None:
        if self._call.cache_slot is not None:
            self._call.cache_slot.take(event)
        if type(event) is Finished:
            if event.error is not None and self.error is None:
                self.error = event.error
            if self.finish is None or event.index == 0:
                self.finish = event
        return self._on_event(event)

    async def wait(self) -> None:
        """Until every choice has finished, well or not."""
        await self.generation.wait()

    def cut(self, error: ProviderError) -> None:
        """End it now with an error that the client sees."""
        if self.error is None:
            self.error = error
        self.generation.close()

    def settle(self, cause: BaseException | None = None) -> UsageRecord:
        """End the generation if it still runs, and give its one usage line to the ledger.

        The first call decides; later ones return its record.

        Args:
            cause: What ended the request early: `CancelledError` for a client that left, else a
                failure. `None` if the generation ended by itself.
        """
        record = self._settlement.record
        if record is not None:
            return record
        generation = self.generation
        generation.close()
        if self._looking is not None:
            self._looking.cancel()
        if generation.started_s is not None:
            self._settlement.mark_started(generation.started_s)
        if generation.first_token_s is not None:
            self._settlement.mark_first_token(generation.first_token_s)
        status, http_status, code = outcome_of(cause or self.error)
        finish = self.finish
        call = self._call
        record = self._settlement.settle(
            status=status,
            usage=generation.usage,
            http_status=call.http_status or http_status,
            finish_reason=_client_reason(finish),
            native_finish_reason=finish.native_finish_reason if finish else None,
            error_code=code,
            cancel_stage=generation.stage if status == "cancelled" else None,
        )
        call.record = record
        call.error_code = code
        if call.cache_slot is not None:
            call.cache_slot.finish(record)
        self._on_settled(self, record)
        return record

    async def until_durable(self) -> None:
        """Wait for the usage line to be on disk, before the end of the answer leaves."""
        await self._settlement.until_durable()

    def conclude(self, *, is_sent: bool) -> None:
        """Say whether the end of the answer was handed to the transport. The first call counts."""
        self._settlement.conclude(is_sent=is_sent)


def _client_reason(finish: Finished | None) -> ClientFinishReason | None:
    """The first choice's ending as a client may see it."""
    if finish is None or finish.finish_reason == "abort":
        return None
    return finish.finish_reason

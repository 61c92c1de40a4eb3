"""One request of an encoder, from admission to settlement."""

import asyncio
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from provider_core.billing.events import CancelStage, Endpoint
from provider_core.encoders import EncoderRow
from provider_core.errors import ProviderError
from provider_core.server.call import Call
from provider_core.server.dispatch import Dispatcher
from provider_core.server.models import ServedEncoder
from provider_core.server.open_run import outcome_of
from provider_core.types import Usage, UsageRecord


class EncoderRun:
    """Rows on their way through an encoder. Whoever makes one must settle it.

    Args:
        dispatcher: Keeps it among what is not settled.
        call: The HTTP request, admitted.
        model: What runs.
        rows: What it reads.
        endpoint: The route's name in the usage event.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        call: Call,
        model: ServedEncoder,
        rows: Sequence[EncoderRow],
        endpoint: Endpoint,
    ) -> None:
        self._dispatcher = dispatcher
        self._call = call
        self._model = model
        self._rows = rows
        self._error: Exception | None = None  # what ended it from outside
        self._until_cut = asyncio.timeout(None)
        self._is_encoded = False
        self._started_s: float | None = None
        self.usage = Usage(prompt_tokens=sum(map(len, rows)))
        self._settlement = dispatcher.open_settlement(call, model, endpoint, n=1)
        dispatcher.runs.add(self)

    @property
    def generation_id(self) -> str:
        """What its usage event calls it."""
        return self._settlement.generation_id

    async def wait(self) -> npt.NDArray[np.float32]:
        """Have the rows read, once; the engine has them before anything else runs on the loop.

        Cancelling the wait ends the work.

        Returns:
            Their vectors or scores, in order.

        Raises:
            ProviderError: It failed, or was cut.
        """
        try:
            async with self._until_cut:
                values = await self._model.engine.encode(
                    self._rows, deadline_s=self._call.deadline_s, on_started=self._note_start
                )
        except TimeoutError:
            if self._error is None:
                raise
            raise self._error from None
        self._is_encoded = True
        return values

    def cut(self, error: ProviderError) -> None:
        """End it now with an error that the client sees."""
        if self._error is None:
            self._error = error
            self._until_cut.reschedule(asyncio.get_running_loop().time())

    def settle(self, cause: BaseException | None = None) -> UsageRecord:
        """Give its one usage line to the ledger; the first call decides.

        Args:
            cause: As for `Run.settle`.
        """
        record = self._settlement.record
        if record is not None:
            return record
        if self._started_s is not None:
            self._settlement.mark_started(self._started_s)
        status, http_status, code = outcome_of(cause or self._error)
        record = self._settlement.settle(
            status=status,
            usage=self.usage,
            http_status=self._call.http_status or http_status,
            finish_reason="stop" if status == "ok" else None,
            error_code=code,
            cancel_stage=self._stage if status == "cancelled" else None,
        )
        self._call.record = record
        self._call.error_code = code
        self._dispatcher.finished(self, record)
        return record

    async def until_durable(self) -> None:
        """Wait for the usage line to be on disk, before the answer leaves."""
        await self._settlement.until_durable()

    def conclude(self, *, is_sent: bool) -> None:
        """Say whether the answer was handed to the transport. The first call counts."""
        self._settlement.conclude(is_sent=is_sent)

    @property
    def _stage(self) -> CancelStage:
        if self._is_encoded:
            return "delivery"
        return "queue" if self._started_s is None else "prefill"

    def _note_start(self, started_s: float) -> None:
        if self._started_s is None:
            self._started_s = started_s

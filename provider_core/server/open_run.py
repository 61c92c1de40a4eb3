"""What the server asks of work that is under way, whatever runs it."""

import asyncio
from typing import Protocol

from provider_core.billing.events import Status
from provider_core.errors import ProviderError
from provider_core.types import Usage, UsageRecord


class OpenRun(Protocol):
    """Work that has an open settlement."""

    @property
    def generation_id(self) -> str:
        """What its usage event calls it."""
        ...

    @property
    def usage(self) -> Usage:
        """What it has used, now."""
        ...

    def cut(self, error: ProviderError) -> None:
        """End it now with an error that the client sees."""
        ...

    def settle(self, cause: BaseException | None = None) -> UsageRecord:
        """End it and give its one usage line to the ledger; the first call decides."""
        ...

    async def until_durable(self) -> None:
        """Wait for the usage line to be on disk, before the end of the answer leaves."""
        ...

    def conclude(self, *, is_sent: bool) -> None:
        """Say whether the end of the answer was handed to the transport. The first call counts."""
        ...


def outcome_of(cause: BaseException | None) -> tuple[Status, int, str | None]:
    """Status, HTTP status and error code of an ending."""
    match cause:
        case None:
            return "ok", 200, None
        case asyncio.CancelledError() | ConnectionError():
            return "cancelled", 499, None
        case ProviderError():
            return "error", cause.status, cause.code
        case _:
            return "error", 500, "internal_error"

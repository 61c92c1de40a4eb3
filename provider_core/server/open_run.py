"""What the server asks of work that is under way, whatever runs it."""

from typing import Protocol

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

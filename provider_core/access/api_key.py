"""An API key as it is stored: whose it is and what it may do, nothing that could be presented."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from provider_core.quotas import RateLimits, SpendLimit, SpendReset
from provider_core.types import Principal

Scope = Literal["inference", "management"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One key. Times are RFC 3339 in whole seconds of UTC, so that they sort as text.

    Attributes:
        id: Public, `key_...`; named in logs and bills.
        label: A name for people.
        account_id: Owner, if any.
        scope: A management key manages others and runs nothing itself.
        models: Those it may use, comma-separated; `None` means all.
        spend_limit: USD as a decimal string.
        spend_reset: When spending is counted from 0 again.
        disabled: Refused until it is enabled again.
        revoked_at: Refused for good since then.
    """

    id: str
    label: str = ""
    account_id: str | None = None
    scope: Scope = "inference"
    models: str | None = None
    spend_limit: str | None = None
    spend_reset: SpendReset | None = None
    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    created_at: str = ""
    updated_at: str | None = None
    expires_at: str | None = None
    disabled: bool = False
    revoked_at: str | None = None

    @property
    def hash(self) -> str:
        """What the management routes call it: 64 hexadecimal digits that say nothing of it."""
        return hashlib.sha256(self.id.encode()).hexdigest()

    @property
    def principal(self) -> Principal:
        """Whoever presents it."""
        return Principal(
            api_key_id=self.id,
            account_id=self.account_id,
            label=self.label,
            scope=self.scope,
            models=None if self.models is None else tuple(self.models.split(",")),
            rate_limits=RateLimits(
                requests_per_minute=self.requests_per_minute,
                requests_per_day=self.requests_per_day,
                tokens_per_minute=self.tokens_per_minute,
                concurrent_requests=self.concurrent_requests,
            ),
            spend_limit=None
            if self.spend_limit is None
            else SpendLimit(Decimal(self.spend_limit), self.spend_reset),
            expires_at=self.expires_at,
        )

    def refusal(self, now: str) -> str | None:
        """Why it is not let in; `None` if it is.

        Args:
            now: From `timestamp`.
        """
        if self.revoked_at is not None:
            return "this API key has been revoked"
        if self.disabled:
            return "this API key is disabled"
        if self.expires_at is not None and self.expires_at <= now:
            return "this API key has expired"
        return None


def timestamp(unix_s: float) -> str:
    """A time as keys keep it."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

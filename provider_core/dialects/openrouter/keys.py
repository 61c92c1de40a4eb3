"""The management of keys as OpenRouter's clients know it: bodies in, key objects out.

Beside OpenRouter's fields a body may hold ours: the models and rates of a key, and its account.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

from provider_core.access.api_key import ApiKey, Scope, timestamp
from provider_core.billing.ledger_rows import Spending
from provider_core.billing.money import format_money
from provider_core.dialects.openrouter.spending import limit_fields, usage_fields
from provider_core.dialects.validation import bad_value, validate
from provider_core.quotas import SpendReset

PAGE_SIZE = 100

_Count = Annotated[int, Field(ge=1)]
_Amount = Annotated[FiniteFloat, Field(ge=0, le=1e9)]
_RATES = ("requests_per_minute", "requests_per_day", "tokens_per_minute", "concurrent_requests")


class _Changes(BaseModel):
    """What a body may say of a key; what it leaves out stays as it is."""

    model_config = ConfigDict(defer_build=True, strict=True, extra="ignore")

    name: str = Field("", max_length=128)
    limit: _Amount | None = None
    limit_reset: SpendReset | None = None
    disabled: bool = False
    expires_at: Annotated[AwareDatetime, Field(strict=False)] | None = None
    models: list[Annotated[str, Field(min_length=1, max_length=256, pattern="^[^,]+$")]] | None = (
        Field(None, max_length=256)
    )
    requests_per_minute: _Count | None = None
    requests_per_day: _Count | None = None
    tokens_per_minute: _Count | None = None
    concurrent_requests: _Count | None = None


class _NewKey(_Changes):
    name: str = Field(min_length=1, max_length=128)
    account_id: str | None = Field(None, min_length=1, max_length=64)
    scope: Scope = "inference"


class Credit(BaseModel):
    """What an account has paid.

    Attributes:
        amount: USD as a string, since the payment is exact.
        id: Of the payment: the same one is credited once.
    """

    model_config = ConfigDict(defer_build=True, strict=True, extra="ignore")

    account_id: str = Field(min_length=1, max_length=64)
    amount: str = Field(pattern=r"^-?(0|[1-9][0-9]{0,9})(\.[0-9]{1,18})?$")
    id: str = Field(min_length=1, max_length=100)
    note: str = Field("", max_length=256)


def parse_new_key(body: dict[str, Any]) -> dict[str, Any]:
    """Read the body of `POST /keys`.

    Returns:
        Facts of an `ApiKey` by the names of its fields.

    Raises:
        InvalidRequest: A field is missing or wrong.
    """
    wanted = validate(_NewKey, body)
    facts = {"account_id": wanted.account_id, "scope": wanted.scope}
    return facts | _facts(wanted)


def parse_changes(body: dict[str, Any]) -> dict[str, Any]:
    """Read the body of `PATCH /keys/{hash}`, alike."""
    return _facts(validate(_Changes, body))


def parse_credit(body: dict[str, Any]) -> Credit:
    """Read the body of `POST /credits`.

    Raises:
        InvalidRequest: A field is missing or wrong.
    """
    return validate(Credit, body)


def key_item(key: ApiKey, spending: Spending, now: str) -> dict[str, Any]:
    """A key as the management routes show it.

    Args:
        key: Which.
        spending: Its own.
        now: From `timestamp`.
    """
    return {
        "hash": key.hash,
        "id": key.id,
        "name": key.label,
        "label": key.label or key.id,
        "disabled": key.refusal(now) is not None,
        **limit_fields(key.principal.spend_limit, spending),
        **usage_fields(spending),
        "created_at": key.created_at,
        "updated_at": key.updated_at,
        "expires_at": key.expires_at,
        "last_used_at": None,
        "creator_user_id": key.account_id,
        "external_user": None,
        "workspace_id": key.account_id or "",
        "account_id": key.account_id,
        "scope": key.scope,
        "models": None if key.models is None else key.models.split(","),
        **{name: getattr(key, name) for name in _RATES},
    }


def _facts(wanted: _Changes) -> dict[str, Any]:
    said = wanted.model_fields_set
    facts: dict[str, Any] = {name: getattr(wanted, name) for name in _RATES if name in said}
    if "name" in said:
        facts["label"] = wanted.name
    if "disabled" in said:
        facts["disabled"] = wanted.disabled
    if "limit" in said:
        limit = wanted.limit  # written as the client wrote it, not as binary
        facts["spend_limit"] = None if limit is None else format_money(Decimal(repr(limit)))
    if "limit_reset" in said:
        facts["spend_reset"] = wanted.limit_reset
    if "expires_at" in said:
        facts["expires_at"] = _time(wanted.expires_at)
    if "models" in said:
        if wanted.models == []:
            raise bad_value("models", "must not be empty; null means all")
        facts["models"] = None if wanted.models is None else ",".join(wanted.models)
    return facts


def _time(ends: datetime | None) -> str | None:
    try:
        return None if ends is None else timestamp(ends.timestamp())
    except (ValueError, OverflowError):  # its zone takes it beyond the calendar
        raise bad_value("expires_at", "must be in the years 1 to 9999 of UTC") from None

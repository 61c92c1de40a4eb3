"""Keys from a TOML document: for deployments that are described in files and nowhere else.

::

    [[key]]
    id = "acme"                         # `key_acme` in logs and bills
    secrets = ["env://ACME_KEY"]        # URIs, read by the hook `load_secret`; two while rotating
    account_id = "acme"
    spend_limit = "100"
    spend_reset = "monthly"
"""

import tomllib
from typing import Annotated

from pydantic import AwareDatetime, Field, ValidationError

from provider_core.access.api_key import ApiKey, Scope, timestamp
from provider_core.errors import ConfigurationError
from provider_core.model_settings import DecimalString, SecretUri, Table
from provider_core.quotas import SpendReset

_Count = Annotated[int, Field(ge=1)]


class _KeyTable(Table):
    id: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,60}$")
    secrets: tuple[SecretUri, ...] = Field(min_length=1, max_length=2)
    label: str = ""
    account_id: str | None = Field(None, min_length=1, max_length=64)
    scope: Scope = "inference"
    models: tuple[str, ...] | None = None
    spend_limit: DecimalString | None = None
    spend_reset: SpendReset | None = None
    requests_per_minute: _Count | None = None
    requests_per_day: _Count | None = None
    tokens_per_minute: _Count | None = None
    concurrent_requests: _Count | None = None
    expires_at: AwareDatetime | None = None


class _KeyFile(Table):
    key: tuple[_KeyTable, ...] = ()


def read_keys(document: bytes, name: str) -> list[tuple[tuple[str, ...], ApiKey]]:
    """Read a file of keys.

    Args:
        document: Its content.
        name: Where it is, for errors.

    Returns:
        Of each key the URIs of its secrets, and the key.

    Raises:
        ConfigurationError: It cannot be understood; the message holds no value of it.
    """
    try:
        tables = _KeyFile.model_validate(tomllib.loads(document.decode())).key
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise ConfigurationError(f"{name} is not valid TOML") from None  # they quote it
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg'].lower()}"
            for detail in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigurationError(f"{name}: {'; '.join(problems)}") from None
    ids = [table.id for table in tables]
    if len(set(ids)) < len(ids):
        raise ConfigurationError(f"{name}: two keys have the same id")
    return [(table.secrets, _key(table)) for table in tables]


def _key(table: _KeyTable) -> ApiKey:
    facts = table.model_dump(exclude={"id", "secrets", "models", "expires_at"})
    ends = table.expires_at
    return ApiKey(
        id=f"key_{table.id}",
        models=None if table.models is None else ",".join(table.models),
        expires_at=None if ends is None else timestamp(ends.timestamp()),
        **facts,
    )

"""Limits and credits that replicas share, in Redis or Valkey: the plugin `redis`."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from provider_core import ConfigurationError, Finding, StoreKind, hookimpl

if TYPE_CHECKING:  # nothing is imported where Redis is not used
    from provider_redis.credit_ledger import RedisCreditLedger
    from provider_redis.limit_store import RedisLimitStore
    from provider_redis.settings import RedisSettings

_REMEDY = 'pip install "provider-core[redis]"'


class _ServerSettings(Protocol):
    """What is asked of the core's settings."""

    @property
    def data_dir(self) -> Path: ...


@hookimpl
def make_store(
    kind: StoreKind, settings: "_ServerSettings"
) -> "RedisLimitStore | RedisCreditLedger | None":
    """Keep them in the Redis of `PROVIDER_REDIS_URL`, if that is set."""
    redis = _settings()
    if redis is None or (kind == "credits" and not redis.credits):
        return None
    if find_spec("redis") is None:
        raise ConfigurationError(f"PROVIDER_REDIS_URL needs the package redis: {_REMEDY}")
    from provider_redis.connection import RedisConnection

    connection = RedisConnection(redis)
    if kind == "limits":
        from provider_redis.limit_store import RedisLimitStore

        return RedisLimitStore(connection, lease_s=redis.lease_s)
    from provider_redis.birth import birth_file
    from provider_redis.credit_ledger import RedisCreditLedger

    return RedisCreditLedger(
        connection,
        event_retention_days=redis.event_retention_days,
        remembered_in=birth_file(settings.data_dir, redis),
    )


@hookimpl
def diagnose() -> list[Finding] | None:
    """Say whether that Redis answers, and keeps what it is given."""
    settings = _settings()
    if settings is None:
        return None
    if find_spec("redis") is None:
        return [Finding(name="redis", status="failed", detail="not installed", remedy=_REMEDY)]
    import asyncio

    from provider_redis.diagnosis import look

    return [asyncio.run(look(settings))]


def _settings() -> "RedisSettings | None":
    """The settings, if they name a Redis."""
    if not any(name.upper().startswith(b"PROVIDER_REDIS_") for name in os.environb):
        return None  # pydantic is asked where there is an answer only: that is 3 ms of each start
    from provider_core.plugin_settings import read_plugin_settings
    from provider_redis.settings import RedisSettings

    settings = read_plugin_settings(RedisSettings)
    return None if settings.url is None else settings

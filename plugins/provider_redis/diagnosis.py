"""What can be said of a Redis: whether it answers, and whether it may lose what it is given."""

from collections.abc import Mapping
from typing import Any

from provider_core import Finding
from provider_redis.connection import RedisConnection, RedisFailedError
from provider_redis.settings import RedisSettings


def may_lose(info: Mapping[str, Any]) -> str:
    """Why it may, by what `INFO` says; empty if it does not."""
    policy = info.get("maxmemory_policy", "noeviction")
    reasons = [] if policy == "noeviction" else [f"maxmemory-policy {policy}"]
    if info.get("aof_enabled") == 0:
        reasons.append("appendonly no")
    return ", ".join(reasons)


async def look(settings: RedisSettings) -> Finding:
    """Ask it."""
    connection = RedisConnection(settings)
    try:
        info = await connection.command("INFO")
    except RedisFailedError as error:
        remedy = "start it, or mend PROVIDER_REDIS_URL"
        return Finding(name="redis", status="failed", detail=str(error), remedy=remedy)
    finally:
        await connection.close()
    loss = may_lose(info) if settings.credits else ""
    version = f"{info.get('redis_version', 'of an unknown version')} answers"
    if not loss:
        return Finding(name="redis", status="ok", detail=version)
    return Finding(
        name="redis",
        status="failed",
        detail=f"{version} and may lose credits: {loss}",
        remedy="set `appendonly yes` and `maxmemory-policy noeviction` there, "
        "or PROVIDER_REDIS_CREDITS=false",
    )

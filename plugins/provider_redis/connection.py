"""The way to one Redis, opened when it is first used."""

import asyncio
from collections.abc import Sequence
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any

from provider_redis.settings import RedisSettings

if TYPE_CHECKING:  # 0.1 s to import: a thread does it while the server starts
    from provider_redis.client import RedisClient

_CLIENT = "provider_redis.client"


class RedisFailedError(Exception):
    """Redis cannot be reached, did not answer in time, or refused."""


class RedisConnection:
    """Runs scripts; connects when the first one is due, and again whenever it has to.

    Args:
        settings: With a URL.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._client: RedisClient | None = None
        Thread(target=import_module, args=(_CLIENT,), daemon=True).start()

    @property
    def timeout_s(self) -> float:
        """Longest wait for an answer."""
        return self._settings.timeout_s

    def key(self, kind: str, name: str = "") -> str:
        """The name of a key. Braces put all of a deployment into one slot of a cluster's proxy."""
        return f"{{{self._settings.prefix}}}:{kind}:{name}"

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[object]) -> Any:
        """Run a script, as one step.

        Args:
            script: Name of its file.
            keys: All that it may touch.
            arguments: Strings and numbers.

        Raises:
            RedisFailedError: It may have run, or not.
        """
        client = await self._open()
        return await client.run(script, keys, arguments)

    async def command(self, *words: object) -> Any:
        """Give a single command.

        Raises:
            RedisFailedError: It may have been done, or not.
        """
        client = await self._open()
        return await client.command(*words)

    async def close(self) -> None:
        """Close what is open. Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _open(self) -> "RedisClient":
        if self._client is None:
            try:
                module = await asyncio.to_thread(import_module, _CLIENT)
                if self._client is None:  # nobody was quicker
                    self._client = module.RedisClient(self._settings)
            except Exception as error:  # noqa: BLE001 - any, whose text may quote the URL
                raise RedisFailedError(f"no client: {type(error).__name__}") from None
        return self._client

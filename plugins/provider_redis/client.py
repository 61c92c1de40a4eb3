"""redis-py with this package's scripts, time limit and errors."""

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from provider_redis.connection import RedisFailedError
from provider_redis.settings import RedisSettings

_SCRIPTS = Path(__file__).parent / "scripts"
_LIBRARY = "ledger_library"  # Lua's part that all scripts of credits begin with
_WITH_LIBRARY = {"reserve", "charge", "add_credit", "balance"}


class RedisClient:
    """A pool of connections and the scripts of this package.

    A connection that turns out to be dead is replaced once, at once: Redis may have been started
    anew since it was used. Whatever runs twice because of that is counted once, but for rates.

    Args:
        settings: With a URL.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._timeout_s = settings.timeout_s
        pool = BlockingConnectionPool.from_url(
            settings.url or "",
            decode_responses=True,
            max_connections=settings.max_connections,
            timeout=settings.timeout_s,
            socket_timeout=settings.timeout_s,
            socket_connect_timeout=settings.timeout_s,
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        self._redis = Redis.from_pool(pool)
        self._asked: set[asyncio.Task[Any]] = set()
        self._scripts = {
            path.stem: self._redis.register_script(_read(path.stem))
            for path in _SCRIPTS.glob("*.lua")
            if path.stem != _LIBRARY
        }

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[object]) -> Any:
        """Run a script, as one step.

        Raises:
            RedisFailedError: It may have run, or not.
        """
        texts = [str(argument) for argument in arguments]
        return await self._answer(self._scripts[script](list(keys), texts))

    async def command(self, *words: object) -> Any:
        """Give a single command.

        Raises:
            RedisFailedError: It may have been done, or not.
        """
        execute: Any = self._redis.execute_command  # which has no types
        return await self._answer(execute(*map(str, words)))

    async def close(self) -> None:
        """Close every connection, when nobody uses one any more."""
        await asyncio.gather(*self._asked, return_exceptions=True)
        await self._redis.aclose(close_connection_pool=True)

    async def _answer(self, asked: Coroutine[Any, Any, Any]) -> Any:
        """Wait for an answer, but not for ever.

        What was asked is never cancelled: half an answer would be left in its connection. It ends
        soon after by the time limits of the socket.
        """
        task = asyncio.create_task(asked)
        self._asked.add(task)
        task.add_done_callback(self._forget)
        await asyncio.wait({task}, timeout=self._timeout_s)
        if not task.done():
            raise RedisFailedError(f"no answer within {self._timeout_s:g} s")
        try:
            return task.result()
        except (RedisError, OSError) as error:
            raise RedisFailedError(f"{type(error).__name__}: {error}") from error
        except Exception as error:  # noqa: BLE001 - what the URL asks of a connection, and quotes
            raise RedisFailedError(type(error).__name__) from None

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._asked.discard(task)
        if not task.cancelled():
            task.exception()  # maybe nobody waits for it any more


def _read(name: str) -> str:
    library = (_SCRIPTS / f"{_LIBRARY}.lua").read_text() if name in _WITH_LIBRARY else ""
    return library + (_SCRIPTS / f"{name}.lua").read_text()

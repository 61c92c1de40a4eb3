"""Which ledger a Redis holds: one that has lost its data is not taken for a new one.

Without accounts everybody would pay later. So each ledger has an id of its own in Redis, made by
the first server that knows of none; a server remembers it, in its data folder too. Where Redis has
another one or none, credits are closed until the data are back, or the operator writes the id.
"""

import asyncio
import hashlib
import secrets
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from provider_redis.connection import RedisConnection, RedisFailedError
from provider_redis.settings import RedisSettings

FIELD = "birth"
_LENGTH = 32


def birth_file(folder: Path, settings: RedisSettings) -> Path:
    """Where a data folder remembers the ledger of a Redis, whose password may change."""
    parts = urlsplit(settings.url or "")
    where = f"{parts.hostname}\0{parts.port}\0{parts.path}\0{settings.prefix}"
    return folder / f"redis-ledger-{hashlib.sha256(where.encode()).hexdigest()[:16]}"


class Birth:
    """The id of the ledger that a server knows.

    Args:
        connection: To its Redis.
        path: Where it is remembered; `None` if nowhere but here.
    """

    def __init__(self, connection: RedisConnection, path: Path | None) -> None:
        self._connection = connection
        self._path = path
        self._lock = asyncio.Lock()
        self._id = ""

    @property
    def key(self) -> str:
        """Of the hash in Redis: the id, and every account that has ever paid."""
        return self._connection.key("ledger")

    async def load(self) -> str:
        """Remember it, or learn it from Redis, or make it.

        Raises:
            RedisFailedError: Nobody knows it.
        """
        async with self._lock:
            self._id = self._id or await asyncio.to_thread(self._read) or await self._learn()
        return self._id

    async def _learn(self) -> str:
        await self._connection.command("HSETNX", self.key, FIELD, secrets.token_hex(_LENGTH // 2))
        learnt: str | None = await self._connection.command("HGET", self.key, FIELD)
        if not learnt:
            raise RedisFailedError("it does not keep what it is given")
        await asyncio.to_thread(self._write, learnt)
        return learnt

    def _read(self) -> str:
        if self._path is not None:
            with suppress(OSError, UnicodeDecodeError):
                text = self._path.read_text(encoding="ascii").strip()
                return text if len(text) == _LENGTH else ""
        return ""

    def _write(self, learnt: str) -> None:
        """For the next start; a folder that cannot be written costs that, and nothing now."""
        if self._path is not None:
            with suppress(OSError):
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._path.write_text(f"{learnt}\n", encoding="ascii")

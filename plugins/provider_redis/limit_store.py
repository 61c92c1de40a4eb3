"""Rates and running requests that replicas count together."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from provider_core import ConcurrencyLimit, RateBucket, Taking
from provider_redis.connection import RedisConnection, RedisFailedError


class RedisLimitStore:
    """The `LimitStore` of all servers of one Redis, whose clock counts.

    Requests that run are counted by leases, which their server renews: those of a server that died
    lapse.

    Args:
        connection: To Redis.
        lease_s: Seconds after which they do.
    """

    def __init__(self, connection: RedisConnection, *, lease_s: float) -> None:
        self._connection = connection
        self._lease_s = lease_s
        self._leases: set[tuple[str, str]] = set()  # of a concurrency limit's key, to a request
        self._renewing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(
        self,
        request_id: str,
        amounts: Sequence[tuple[RateBucket, float]],
        concurrency: Sequence[ConcurrencyLimit] = (),
    ) -> Taking:
        """Take everything or nothing; nothing in the end if it is cancelled.

        Raises:
            RedisFailedError: Redis cannot be asked.
        """
        asked = asyncio.create_task(self._run(request_id, amounts, concurrency))
        try:
            is_taken, levels, others = await asyncio.shield(asked)
        except asyncio.CancelledError:  # what nobody waits for is nobody's
            self._do(self._give_back_after(asked, request_id, amounts, concurrency))
            raise
        if is_taken and concurrency:
            self._leases |= {(self._set_of(limit), request_id) for limit in concurrency}
            if self._renewing is None:
                self._renewing = asyncio.create_task(self._renew())
        return Taking(bool(is_taken), tuple(map(float, levels)), tuple(others))

    def give_back(
        self,
        request_id: str,
        amounts: Sequence[tuple[RateBucket, float]],
        concurrency: Sequence[ConcurrencyLimit] = (),
    ) -> None:
        """Put amounts back, and no longer count the request as running."""
        self._leases -= {(self._set_of(limit), request_id) for limit in concurrency}
        self._do(self._run(request_id, amounts, concurrency, is_back=True))

    async def close(self) -> None:
        """Finish what was given back, and close. Idempotent."""
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._connection.timeout_s)
        await self._connection.close()

    async def _run(
        self,
        request_id: str,
        amounts: Sequence[tuple[RateBucket, float]],
        concurrency: Sequence[ConcurrencyLimit],
        *,
        is_back: bool = False,
    ) -> tuple[int, list[str], list[int]]:
        keys = [self._connection.key("rate", bucket.name) for bucket, _ in amounts]
        arguments: list[object] = [int(is_back), len(keys), request_id, self._lease_s * 1e6]
        for bucket, amount in amounts:
            arguments += [-amount if is_back else amount, bucket.capacity, bucket.period_s * 1e6]
        keys += [self._set_of(limit) for limit in concurrency]
        arguments += [limit.capacity for limit in concurrency]
        answer: tuple[int, list[str], list[int]] = await self._connection.run(
            "take", keys, arguments
        )
        return answer

    async def _give_back_after(
        self,
        asked: "asyncio.Task[tuple[int, list[str], list[int]]]",
        request_id: str,
        amounts: Sequence[tuple[RateBucket, float]],
        concurrency: Sequence[ConcurrencyLimit],
    ) -> None:
        is_taken, _, _ = await asked
        if is_taken:
            await self._run(request_id, amounts, concurrency, is_back=True)

    async def _renew(self) -> None:
        """While anything runs, tell Redis so."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            await self._renew_once()

    async def _renew_once(self) -> None:
        leases = list(self._leases)
        if leases:
            arguments = [self._lease_s * 1e6, *(request_id for _, request_id in leases)]
            with suppress(RedisFailedError):  # whoever takes next says so
                await self._connection.run("renew", [key for key, _ in leases], arguments)

    def _set_of(self, limit: ConcurrencyLimit) -> str:
        return self._connection.key("running", limit.name)

    def _do(self, work: Coroutine[Any, Any, object]) -> None:
        """Do something that nobody waits for; what is lost flows in again, or lapses."""

        async def quietly() -> None:
            with suppress(RedisFailedError):
                await work

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

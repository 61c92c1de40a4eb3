"""What decoded images take: small files hold large pictures, and many may come at once."""

import asyncio

from provider_core.errors import Overloaded

_RETRY_S = 1.0


class ImageMemory:
    """Room for the decoded images of all requests, given in the order of asking.

    Args:
        num_bytes: All of it.
        wait_s: Longest wait for a part of it.
    """

    def __init__(self, num_bytes: int, wait_s: float) -> None:
        self._num_free = num_bytes
        self._wait_s = wait_s
        self._next = asyncio.Lock()  # whose turn it is; the others wait in order
        self._freed = asyncio.Event()

    async def take(self, num_bytes: int) -> None:
        """Wait for room, and take it.

        Args:
            num_bytes: At most all that there is.

        Raises:
            Overloaded: There was none in time.
        """
        try:
            async with asyncio.timeout(self._wait_s), self._next:
                while num_bytes > self._num_free:
                    self._freed.clear()
                    await self._freed.wait()
                self._num_free -= num_bytes
        except TimeoutError:
            raise Overloaded(
                "too many images are in use; try again later", retry_after_s=_RETRY_S
            ) from None

    def give_back(self, num_bytes: int) -> None:
        """Leave room to others."""
        self._num_free += num_bytes
        self._freed.set()

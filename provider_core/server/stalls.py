"""Clients that do not read: given up when nothing of what waits for them moves for too long."""

import asyncio


class StallWatch:
    """Watches one connection's unsent bytes while there are too many of them.

    A client that reads, however slowly, is left alone; the limit starts anew with every byte.

    Args:
        loop: The running loop.
        stall_s: How long nothing may move.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, stall_s: float) -> None:
        self._loop = loop
        self._stall_s = stall_s
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._moved_s = 0.0

    def start(self, transport: asyncio.Transport) -> None:
        """Begin to watch; until `stop`."""
        self.stop()
        self._unsent = transport.get_write_buffer_size()
        self._moved_s = self._loop.time()
        self._wait(transport)

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, transport: asyncio.Transport) -> None:
        pause_s = min(1.0, self._stall_s / 4)
        self._timer = self._loop.call_later(pause_s, self._look, transport)

    def _look(self, transport: asyncio.Transport) -> None:
        self._timer = None
        unsent = transport.get_write_buffer_size()
        now_s = self._loop.time()
        if unsent != self._unsent:
            self._unsent, self._moved_s = unsent, now_s
        elif now_s - self._moved_s >= self._stall_s:
            transport.abort()
            return
        if unsent:
            self._wait(transport)

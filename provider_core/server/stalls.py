"""Clients that do not read: given up when nothing of what waits for them moves for too long."""

import asyncio
import fcntl
import struct
import termios
from contextlib import suppress


class StallWatch:
    """Watches one connection's unsent bytes while there are too many of them.

    A client that reads, however slowly, is left alone; the limit starts anew with every byte that
    its machine takes. The system's buffer counts, too: it takes more from ours only when a large
    part of it is free.

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
        self._unsent = _num_unsent(transport)
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
        unsent = _num_unsent(transport)
        now_s = self._loop.time()
        if unsent != self._unsent:
            self._unsent, self._moved_s = unsent, now_s
        elif now_s - self._moved_s >= self._stall_s:
            transport.abort()
            return
        if transport.get_write_buffer_size():
            self._wait(transport)


def _num_unsent(transport: asyncio.Transport) -> int:
    """Bytes that the client's machine has not confirmed, in our buffer and in the system's.

    The latter is Linux's `SIOCOUTQ` (tcp(7)), by its other name; 0 where the system does not tell.
    """
    waiting = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError, ValueError):  # another system; closed meanwhile
            (queued,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
            waiting += queued
    return waiting

"""Which clients are cut because they do not read, and which only read slowly."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import cast
from unittest.mock import Mock

import pytest

from provider_core.server.stalls import StallWatch

STALL_S = 4.0
NUM_LOOKS = 20  # at one a second, many times the limit


class Timers:
    """A loop that has only a time and one timer, which runs out when it is told."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.next: Callable[[], None] | None = None

    def time(self) -> float:
        """Seconds."""
        return self.now_s

    def call_later(self, delay_s: float, call: Callable[[object], None], argument: object) -> Mock:
        """Keep the call."""

        def run() -> None:
            self.now_s += delay_s
            self.next = None
            call(argument)

        self.next = run
        return Mock()


@pytest.fixture
def client() -> Iterator[socket.socket]:
    """A client whose system takes little at a time."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        yield client


@pytest.fixture
def transport(client: socket.socket) -> Iterator[Mock]:
    """Of a connection to it that is full; of our own buffer the system takes nothing any more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    with server:
        server.setblocking(False)  # noqa: FBT003 - the socket module takes no keyword
        with suppress(BlockingIOError):
            while True:
                server.send(bytes(65536))
        yield Mock(
            get_write_buffer_size=lambda: 1000, get_extra_info={"socket": server}.__getitem__
        )


def watch(transport: Mock, read: Callable[[], object]) -> int:
    """Watch a connection whose client reads before each look; how often it was looked at."""
    timers = Timers()
    StallWatch(cast(asyncio.AbstractEventLoop, timers), STALL_S).start(transport)
    for number in range(NUM_LOOKS):
        read()
        if timers.next is None:
            return number
        timers.next()
    return NUM_LOOKS


def test_a_client_that_reads_slowly_is_left_alone(client: socket.socket, transport: Mock) -> None:
    """Also while what it reads makes no room for more in the system's buffer."""
    assert watch(transport, lambda: client.recv(16384)) == NUM_LOOKS
    transport.abort.assert_not_called()


def test_a_client_that_reads_nothing_is_cut(transport: Mock) -> None:
    """When the limit has passed."""
    assert watch(transport, lambda: None) == STALL_S
    transport.abort.assert_called_once()


@pytest.mark.parametrize("sock", [None, Mock(fileno=lambda: -1)], ids=["none", "closed"])
def test_a_connection_whose_system_tells_nothing_is_watched(
    transport: Mock, sock: Mock | None
) -> None:
    """By our own buffer alone."""
    transport.get_extra_info = {"socket": sock}.__getitem__
    watch(transport, lambda: None)
    transport.abort.assert_called_once()

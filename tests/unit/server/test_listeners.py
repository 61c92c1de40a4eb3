"""Listening sockets: whoever gets through to one is answered or hung up on."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, cast

import pytest
import uvloop

from provider_core.server.listeners import Listeners
from provider_core.settings import Settings

PATIENCE_S = 10
Run = Callable[[Coroutine[Any, Any, None]], None]


class Greeter(asyncio.Protocol):
    """Says a byte and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Do it."""
        server = cast("asyncio.WriteTransport", transport)
        server.write(b"x")
        server.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("num_turns", range(5))
def test_nobody_is_left_waiting_by_a_socket_that_closes(run: Run, num_turns: int) -> None:
    """Whatever the loop has done with it by then: queued, accepted, begun or served it."""

    async def close_amid_a_connection() -> None:
        listeners = Listeners(Settings(port=0))
        port = listeners.open()
        await listeners.serve(Greeter)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setblocking(False)  # noqa: FBT003 - the socket module takes no keyword
            for _ in range(num_turns):
                await asyncio.sleep(0)
            await listeners.close()
            await listeners.close()  # idempotent
            with suppress(ConnectionError):
                received = asyncio.get_running_loop().sock_recv(client, 1)
                assert await asyncio.wait_for(received, PATIENCE_S) in {b"x", b""}

    run(close_amid_a_connection())

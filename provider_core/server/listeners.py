"""The sockets on which connections come in."""

import asyncio
import socket
from collections.abc import Callable

from provider_core.errors import ConfigurationError


class Listeners:
    """Listening sockets of one server: its port, and maybe one that health checks are sent to."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []

    async def open(self, factory: Callable[[], asyncio.Protocol], host: str, port: int) -> int:
        """Listen on an address.

        Args:
            factory: Makes what answers a connection.
            host: Of this machine.
            port: 0 picks a free one.

        Returns:
            The bound port.

        Raises:
            ConfigurationError: Taken, forbidden, or no address of this machine.
        """
        sock = bind(host, port)
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(factory, sock=sock, backlog=1024))
        bound: int = sock.getsockname()[1]
        return bound

    @property
    def sockets(self) -> list[socket.socket]:
        """Those that listen."""
        return [each for server in self._servers for each in server.sockets]

    def close(self) -> None:
        """Take no more connections; those that are open stay. Idempotent."""
        for server in self._servers:
            server.close()


def bind(host: str, port: int) -> socket.socket:
    """Bind a listening address.

    Raises:
        ConfigurationError: Taken, forbidden, or no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as exc:
        sock.close()
        raise ConfigurationError(
            f"cannot bind {host}:{port}: {exc.strerror}; set PROVIDER_HOST or PROVIDER_PORT"
        ) from exc
    sock.setblocking(False)  # noqa: FBT003 - the socket module takes no keyword
    return sock

"""The sockets on which connections come in."""

import asyncio
import socket
from collections.abc import Callable

from provider_core.errors import ConfigurationError
from provider_core.settings import Settings

_BACKLOG = 1024


class Listeners:
    """Listening sockets of one server: its port, and maybe one that health checks are sent to.

    They are open before anything answers: a platform that connects finds a process that lives, and
    what it asks waits in the system's queue until the server is there.

    Args:
        settings: Name the addresses.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    def open(self) -> int:
        """Listen, once.

        Returns:
            The bound port.

        Raises:
            ConfigurationError: Taken, forbidden, or no address of this machine.
        """
        if not self.sockets:
            host, port = self._settings.host, self._settings.port
            probe_port = self._settings.server.probe_port
            self.sockets.append(listen(host, port))
            if probe_port is not None and probe_port != port:
                self.sockets.append(listen(host, probe_port))
        bound: int = self.sockets[0].getsockname()[1]
        return bound

    async def serve(self, factory: Callable[[], asyncio.Protocol]) -> None:
        """Take connections, those that wait first.

        Args:
            factory: Makes what answers one.
        """
        loop = asyncio.get_running_loop()
        for sock in self.sockets:
            server = await loop.create_server(factory, sock=sock, backlog=_BACKLOG)
            self._servers.append(server)

    async def close(self) -> None:
        """Take no more connections; those that are open stay. Idempotent."""
        if self._servers:
            # asyncio forgets what it has accepted, and not begun to serve, when a server closes:
            # nobody would answer, nor hang up. So it accepts nothing more first, and begins those.
            loop = asyncio.get_running_loop()
            for sock in self.sockets:
                loop.remove_reader(sock)
            await asyncio.sleep(0)
        while self._servers:
            self._servers.pop().close()
        for sock in self.sockets:
            sock.close()


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Raises:
        ConfigurationError: Taken, forbidden, or no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as exc:
        sock.close()
        raise ConfigurationError(
            f"cannot bind {host}:{port}: {exc.strerror}; set PROVIDER_HOST or PROVIDER_PORT"
        ) from exc
    sock.setblocking(False)  # noqa: FBT003 - the socket module takes no keyword
    return sock

"""The ingress's own port: HTTP without Ray's proxy in between.

The proxy takes what an ingress sends from Ray, piece by piece, as the ingress did from replicas.
Here the client's connection ends in the ingress itself, in the server that Ray's proxy uses, too.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn


class HttpServer:
    """Serves an ASGI application from this process; `start` makes one.

    Args:
        server: Configured.
        listener: Bound.
    """

    def __init__(self, server: uvicorn.Server, listener: socket.socket) -> None:
        self._server = server
        self._serving = asyncio.ensure_future(server.serve(sockets=[listener]))

    @classmethod
    def start(
        cls,
        app: Callable[..., Awaitable[None]],
        host: str,
        port: int,
        *,
        max_connections: int,
        keep_alive_s: float,
    ) -> "HttpServer":
        """Listen, beside other ingresses of this machine.

        Args:
            app: Answers; it adds all headers itself.
            host: Address to bind.
            port: Also bound by the others: the system deals connections out among them.
            max_connections: At a time; beyond them requests are refused with a 503.
            keep_alive_s: For which a connection may be idle.

        Raises:
            OSError: Somebody else has the port.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, reuse_port=True)
        options: dict[str, Any] = {
            "interface": "asgi3",
            "lifespan": "off",
            "ws": "none",
            "proxy_headers": False,  # the server decides whom to believe
            "server_header": False,
            "date_header": False,
            "log_config": None,
            "log_level": "error",
            "access_log": False,
            "limit_concurrency": max_connections,
            "timeout_keep_alive": keep_alive_s,
        }
        return cls(uvicorn.Server(uvicorn.Config(app, **options)), listener)

    async def stop(self) -> None:
        """Take no more connections, and wait until those that are open have their answers."""
        self._server.should_exit = True
        await self._serving

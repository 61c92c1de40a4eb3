"""Doing something at the nth await of a request's handler."""

from collections.abc import Awaitable, Callable, Generator
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from provider_core import hookimpl


class AtSuspension:
    """A plugin whose middleware, outside of all others, acts at the nth suspension of requests.

    Args:
        path: Of the requests.
        act: Called in the request's task, about to wait.

    Attributes:
        point: Which suspension, counted from 1; 0 is none.
        num_suspensions: Of the last request.
    """

    def __init__(self, path: str, act: Callable[[], None]) -> None:
        self.path = path
        self.point = 0
        self.num_suspensions = 0
        self._act = act

    @hookimpl
    def setup_app(self, app: web.Application) -> None:
        """Add the middleware."""
        app.middlewares.insert(0, self._middleware)

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != self.path:
            return await handler(request)
        num_suspensions = 0

        def count() -> None:
            nonlocal num_suspensions
            num_suspensions += 1
            self.num_suspensions = num_suspensions
            if num_suspensions == self.point:
                self._act()

        self.num_suspensions = 0
        return await _Stepped(handler(request), count)


class _Stepped:
    """An awaitable that tells of each time it waits."""

    def __init__(self, awaitable: Awaitable[web.StreamResponse], tell: Callable[[], None]) -> None:
        self._awaitable = awaitable
        self._tell = tell

    def __await__(self) -> Generator[Any, None, web.StreamResponse]:
        """Wait as it waits."""
        inner = self._awaitable.__await__()
        result: Any = None
        error: BaseException | None = None
        while True:
            try:
                waited_for = inner.send(result) if error is None else inner.throw(error)
            except StopIteration as stop:
                response: web.StreamResponse = stop.value
                return response
            self._tell()
            result, error = None, None
            try:
                result = yield waited_for
            except BaseException as exc:  # noqa: BLE001 - given on, whatever it is
                error = exc

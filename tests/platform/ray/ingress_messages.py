"""What the ingress sends in each case: `python ingress_messages.py`, where Ray is installed.

Writes a JSON object of cases to standard output: messages sent, calls made, and what was raised.
"""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.context import _RequestContext, _serve_request_context
from ray.serve.exceptions import BackPressureError

from provider_ray.calls import Call, Head
from provider_ray.ingress import Ingress
from provider_ray.replies import ReplyAddress, ReplyListener, send_reply

_SSE = Head(200, (("Content-Type", "text/event-stream"), ("X-Request-Id", "r"), ("Server", "s")))
_JSON = Head(200, (("Content-Type", "application/json"), ("Content-Length", "10")))
_SILENCE = object()
_LEAVES = None
_MAX_BODY_BYTES = 8
_CASES: dict[str, tuple[list[Any], list[bytes | None]]] = {
    "whole": ([_SSE, b"data: 1\n\n"], [b"ab", b"cd"]),
    "past the proxy": ([_SSE, b"data: 1\n\n"], [b"ab", b"cd"]),
    "full": ([BackPressureError(num_queued_requests=1, max_queued_requests=1)], [b"ab"]),
    "lost before the head": ([RayActorError()], [b"ab"]),
    "cancelled by Ray": ([asyncio.CancelledError()], [b"ab"]),
    "lost amid a stream": ([_SSE, b"data: 1", RayActorError()], [b"ab"]),
    "lost amid a document": ([_JSON, b"{", RayActorError()], [b"ab"]),
    "client left": ([], [b"ab", _LEAVES, b"cd"]),
    "client left amid a stream": ([_SSE, b"data: 1", _SILENCE], [b"ab", _LEAVES]),
    "client left before the head": ([_SILENCE], [b"ab", _LEAVES]),
    "too large": ([_JSON], [b"abcdef", b"ghijkl", b"never read"]),
}
_SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/v1/ü",
    "raw_path": b"/v1/%C3%BC",
    "query_string": b"key=k",
    "client": ("192.0.2.1", 1),
    "headers": [(b"X-Forwarded-For", b"198.51.100.7"), (b"Content-Length", b"4"), (b"A", b"b")],
}


class _Response:
    """Ray's call of a replica."""

    def __init__(self, address: ReplyAddress, pieces: list[Any], silent: asyncio.Event) -> None:
        self.is_cancelled = False
        self.is_closed = False
        self._silent = silent
        self._replica = asyncio.ensure_future(self._answer(address, pieces))

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.shield(self._replica).__await__()

    def cancel(self) -> None:
        self.is_cancelled = True

    async def ended(self) -> None:
        """Wait until the replica has noticed whatever happened."""
        await asyncio.wait({self._replica})

    async def _answer(self, address: ReplyAddress, pieces: list[Any]) -> None:
        if isinstance(pieces[0], BaseException):
            raise pieces[0]
        await send_reply(address, self._pieces(pieces))

    async def _pieces(self, pieces: list[Any]) -> AsyncGenerator[Head | bytes, None]:
        try:
            for piece in pieces:
                if isinstance(piece, Exception):
                    raise piece
                if piece is _SILENCE:
                    self._silent.set()
                    await asyncio.Event().wait()
                yield piece
        finally:
            self.is_closed = True


class _Server:
    """In the place of one that listens."""

    async def stop(self) -> None:
        """Nobody is connected."""


class _Exchange:
    """One request, as an ASGI server has it."""

    def __init__(self, pieces: list[Any], body: list[bytes | None]) -> None:
        self.calls: list[Call] = []
        self.responses: list[_Response] = []
        self.sent: list[dict[str, Any]] = []
        self._pieces = pieces
        self._body = body
        self._silent = asyncio.Event()  # nothing more comes

    def ask(self, call: Call, address: ReplyAddress) -> _Response:
        self.calls.append(call)
        self.responses.append(_Response(address, self._pieces, self._silent))
        return self.responses[0]

    async def receive(self) -> dict[str, Any]:
        part = self._body.pop(0) if self._body else b""
        if part is _LEAVES:
            if not self._body:  # the request was whole
                await self._silent.wait()
            return {"type": "http.disconnect"}
        if not part:
            await asyncio.Event().wait()
        has_more = any(each is not _LEAVES for each in self._body)
        return {"type": "http.request", "body": part, "more_body": has_more}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


async def _run(name: str) -> dict[str, Any]:
    pieces, body = _CASES[name]
    exchange = _Exchange(pieces, body)
    listener = ReplyListener("127.0.0.1")
    applications: list[Callable[..., Awaitable[None]]] = []

    def start_server(application: Callable[..., Awaitable[None]]) -> Any:
        applications.append(application)
        return _Server()

    ingress = Ingress(
        exchange.ask,
        listener,
        max_body_bytes=_MAX_BODY_BYTES,
        start_server=start_server,
    )
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    said: asyncio.Queue[Any] = asyncio.Queue()
    living = asyncio.create_task(ingress({"type": "lifespan"}, told.get, said.put))
    await told.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    application = applications[0] if name == "past the proxy" else ingress
    raised = None
    try:
        await application(dict(_SCOPE), exchange.receive, exchange.send)
    except ConnectionAbortedError as error:
        raised = str(error)
    for response in exchange.responses:
        await response.ended()
    await told.put({"type": "lifespan.shutdown"})
    await living
    sent = exchange.sent
    return {
        "status": next((each["status"] for each in sent if "status" in each), None),
        "headers": [each["headers"] for each in sent if "headers" in each],
        "body": b"".join(each.get("body", b"") for each in sent).decode(),
        "is_complete": bool(sent) and sent[-1].get("more_body") is False,
        "calls": [
            [call.method, call.path, call.headers, call.body.decode()] for call in exchange.calls
        ],
        "is_cancelled": [response.is_cancelled for response in exchange.responses],
        "is_closed": [response.is_closed for response in exchange.responses],
        "raised": raised,
    }


async def _main() -> None:
    _serve_request_context.set(_RequestContext(request_id="of-ray"))
    async with asyncio.timeout(30):
        cases = {name: await _run(name) for name in _CASES}
    json.dump(cases, sys.stdout, default=lambda value: value.decode())


if __name__ == "__main__":
    asyncio.run(_main())

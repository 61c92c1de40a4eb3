"""The ingress: reads a request whole, has a replica answer it, and passes the answer on.

It reads because the router has to see the prompt. Who may do what, and what is wrong with a request
is the server's to say; here is answered only what no server could.
"""

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
from ray.exceptions import RayError
from ray.serve.context import _serve_request_context  # documented, for all its name
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentResponseGenerator

from provider_ray.calls import Call, Head, end_to_end
from provider_ray.prefixes import prefix_keys

log = logging.getLogger("ray.serve")  # Ray writes it beside its own lines

# The names and shapes are those of ASGI.
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ADDED = {"date", "server", "x-request-id"}  # by Ray's proxy, to every answer
_EVENT_STREAM = "text/event-stream"


class ClientLeft(Exception):
    """Before its request was whole."""


class Ingress:
    """An ASGI application.

    Args:
        answer: Has a replica answer.
        max_body_bytes: Of a request; one byte more is read, for the server to refuse it.
    """

    def __init__(
        self,
        answer: Callable[[Call], DeploymentResponseGenerator],
        max_body_bytes: int,
    ) -> None:
        self._answer = answer
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        match scope["type"]:
            case "lifespan":
                await _live(receive, send)
            case "http":
                await self._serve(scope, receive, send)

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            body = await self._read_body(receive)
        except ClientLeft:
            return
        head: Head | None = None
        answer = self._answer(_call_of(scope, body))
        try:
            async for piece in answer:
                if isinstance(piece, Head):
                    head = piece
                    await send(_start(piece))
                else:
                    await send(_body(piece))
        except BackPressureError:
            await _fail(send, head, 429, "overloaded", "every replica is full")
        except (RayError, RayServeException) as error:
            log.warning("A replica was lost: %s", type(error).__name__)
            await _fail(send, head, 503, "replica_lost", "the replica of this request ended")
        finally:
            answer.cancel()  # a client that left is one to the server, too
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _read_body(self, receive: Receive) -> bytes:
        body = bytearray()
        while len(body) <= self._max_body_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        return bytes(body[: self._max_body_bytes + 1])


async def _live(receive: Receive, send: Send) -> None:
    """Begin and end with nothing to do."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _call_of(scope: Message, body: bytes) -> Call:
    sent = tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1"))
        for name, value in scope["headers"]
    )
    known = dict(sent)
    forwarded = [known.get("x-forwarded-for"), (scope.get("client") or [None])[0]]
    ours = {
        "x-forwarded-for": ", ".join(filter(None, forwarded)),  # whom Ray's proxy saw comes last
        "x-request-id": _serve_request_context.get().request_id,  # as Ray answers it
    }
    replaced = {*ours, "content-length"}
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
    if query := scope["query_string"].decode("latin-1"):
        path = f"{path}?{query}"
    return Call(
        method=scope["method"],
        path=path,
        headers=(*(each for each in end_to_end(sent) if each[0] not in replaced), *ours.items()),
        body=body,
        prefix_keys=prefix_keys(path, known, body) if body else (),
    )


def _start(head: Head) -> Message:
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in head.headers
        if name.lower() not in _ADDED
    ]
    return {"type": "http.response.start", "status": head.status, "headers": headers}


def _body(piece: bytes) -> Message:
    return {"type": "http.response.body", "body": piece, "more_body": True}


async def _fail(send: Send, head: Head | None, status: int, code: str, message: str) -> None:
    """Say what went wrong in a form that clients of every dialect take for an error."""
    error = {"type": "server_error", "code": code, "message": message}
    text = orjson.dumps({"type": "error", "error": error})
    if head is None:
        headers = (("Content-Type", "application/json"), ("Retry-After", "1"))
        await send(_start(Head(status, headers)))
        await send(_body(text))
    elif dict(head.headers).get("Content-Type", "").startswith(_EVENT_STREAM):
        await send(_body(b"\n\nevent: error\ndata: " + text + b"\n\n"))
    else:
        raise ConnectionAbortedError(message)  # half an answer must not look whole

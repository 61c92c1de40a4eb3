"""The ingress: reads a request whole, has a replica answer it, and passes the answer on.

It reads because the router has to see the prompt. Who may do what, and what is wrong with a request
is the server's to say; here is answered only what no server could.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

import orjson
from ray.exceptions import RayError
from ray.serve.context import _serve_request_context  # documented, for all its name
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentResponse

from provider_ray.calls import Call, Head, end_to_end
from provider_ray.http_server import HttpServer
from provider_ray.prefixes import prefix_keys
from provider_ray.replies import ReplyAddress, ReplyCut, ReplyListener, unless

log = logging.getLogger("ray.serve")  # Ray writes it beside its own lines

# The names and shapes are those of ASGI.
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_ADDED = {b"date", b"server", b"x-request-id"}  # by Ray's proxy, to every answer
_EVENT_STREAM = "text/event-stream"


class ClientLeft(Exception):
    """Before its request was whole."""


class Ingress:
    """An ASGI application.

    Args:
        answer: Has a replica answer to an address.
        replies: Where it does; listens while the application lives.
        max_body_bytes: Of a request; one byte more is read, for the server to refuse it.
        start_server: Starts a server of the ingress's own, with the application that it is given;
            `None` leaves all to Ray's proxies.
    """

    def __init__(
        self,
        answer: Callable[[Call, ReplyAddress], DeploymentResponse],
        replies: ReplyListener,
        *,
        max_body_bytes: int,
        start_server: Callable[[Application], HttpServer] | None = None,
    ) -> None:
        self._answer = answer
        self._replies = replies
        self._max_body_bytes = max_body_bytes
        self._start_server = start_server

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a scope of Ray's: the life of this process, or a request that a proxy took."""
        match scope["type"]:
            case "lifespan":
                await self._live(receive, send)
            case "http":
                request_id = _serve_request_context.get().request_id
                await self._serve(scope, receive, partial(_send_to_proxy, send), request_id)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Listen from the first message to the second."""
        await receive()
        await self._replies.open()
        server = None if self._start_server is None else self._start_server(self._serve)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if server is not None:
            await server.stop()
        self._replies.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(
        self, scope: Message, receive: Receive, send: Send, request_id: str = ""
    ) -> None:
        """Serve a request; its id is set if Ray's proxy gave it one, and answers with that."""
        try:
            body = await self._read_body(receive)
        except ClientLeft:
            return
        call = _call_of(scope, body, request_id)
        await unless(_until_left(receive), self._pass_on(call, send))

    async def _pass_on(self, call: Call, send: Send) -> None:
        head: Head | None = None
        with self._replies.expect() as reply:
            response = self._answer(call, reply.address)
            calling = asyncio.ensure_future(_result_of(response))
            calling.add_done_callback(reply.note_end)
            try:
                head = await reply.head()
                await send(_start(head))
                async for piece in reply.pieces():
                    await send(_body(piece))
                await calling  # says whether that was all
            except BackPressureError:
                await _fail(send, head, 429, "overloaded", "every replica is full")
            except (RayError, RayServeException, ReplyCut) as error:
                log.warning("A replica was lost: %s", type(error).__name__)
                await _fail(send, head, 503, "replica_lost", "the replica of this request ended")
            finally:
                if not calling.done():  # a client that left is one to the server, too
                    response.cancel()
                    calling.cancel()
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


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _result_of(response: DeploymentResponse) -> None:
    """Wait for the end of a call.

    Raises:
        ReplyCut: Ray cancelled it, which looks as if this task had been.
    """
    try:
        await response
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ReplyCut from None


async def _send_to_proxy(send: Send, message: Message) -> None:
    """Leave to Ray's proxy what it adds to every answer."""
    if "headers" in message:
        message["headers"] = [each for each in message["headers"] if each[0] not in _ADDED]
    await send(message)


def _call_of(scope: Message, body: bytes, request_id: str) -> Call:
    sent = tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1"))
        for name, value in scope["headers"]
    )
    known = dict(sent)
    forwarded = [known.get("x-forwarded-for"), (scope.get("client") or [None])[0]]
    ours = {"x-forwarded-for": ", ".join(filter(None, forwarded))}  # whom we saw comes last
    if request_id:
        ours["x-request-id"] = request_id  # as Ray answers it
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
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in head.headers
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

"""One request on one connection, and its answer as it arrives.

The connection is opened first and its cost is in no latency, as for a client that keeps its
connections. The clock is read once per read, before anything is done with the bytes.
"""

import asyncio
import ssl
from time import perf_counter
from typing import Any

import orjson

from provider_core.loadtest.http_stream import BadResponse, LineSplitter, ResponseReader
from provider_core.loadtest.replies import Clock, Reply, error_message
from provider_core.loadtest.target import Target

MAX_BODY_BYTES = 1 << 20
"""Kept of an answer that is not a stream: an error, a list of models."""


class Receiver(asyncio.Protocol):
    """Reads one answer into a `Reply`.

    Args:
        clock: What times are read from.
        reply: What is filled.

    Attributes:
        done: Set when the answer has ended, well or not. Carries no exception.
        body: What was not a stream of events.
    """

    def __init__(self, clock: Clock, reply: Reply) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.response = ResponseReader()
        self.body = bytearray()
        self._clock = clock
        self._reply = reply
        self._lines = LineSplitter()

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        now_s = self._clock()
        try:
            body = self.response.feed(data)
        except BadResponse as error:
            self._end("bad_response", error.message)
            return
        if self.response.status == 200 and self.response.is_event_stream:
            for payload in self._lines.feed(body):
                self._reply.take(payload, now_s)
        elif len(self.body) < MAX_BODY_BYTES:
            self.body += body
        if self.response.is_done:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side, or the system, ended it."""
        if exc is not None:
            self._end("connection_lost", str(exc) or type(exc).__name__)
        elif self.response.status == 0:
            self._end("connection_lost", "closed before an answer")
        else:
            self._end()

    def _end(self, kind: str | None = None, detail: str = "") -> None:
        if self.done.done():
            return
        reply = self._reply
        if reply.ended_s < reply.sent_s or not reply.is_finished:
            reply.ended_s = self._clock()
        if kind is not None:
            reply.fail(kind, detail)
        elif self.response.status != 200:
            reply.fail(f"http_{self.response.status}", _words(bytes(self.body)))
        elif self.response.is_event_stream and not reply.is_finished:
            reply.fail("incomplete", "the stream ended before the text did")
        self.done.set_result(None)


def _words(body: bytes) -> str:
    """A refusal in the server's words."""
    try:
        return error_message(orjson.loads(body))[:300]
    except orjson.JSONDecodeError:
        return body[:300].decode(errors="replace").strip()


class Client:
    """Sends requests to one server.

    Args:
        target: The server.
        timeout_s: Longest whole answer.
        clock: What times are read from.
    """

    def __init__(self, target: Target, *, timeout_s: float, clock: Clock = perf_counter) -> None:
        self.target = target
        self._timeout_s = timeout_s
        self._clock = clock
        self._tls = ssl.create_default_context() if target.is_tls else None

    async def stream(self, message: bytes, *, due_s: float | None = None) -> Reply:
        """Send one streamed request and read its answer to the end. Never raises for a failure.

        Args:
            message: What `Target.post` gave.
            due_s: When it should be sent, on the client's clock; for `Reply.lag_s`.
        """
        reply = Reply()
        receiver = await self._exchange(message, reply)
        if due_s is not None:
            reply.lag_s = max(0.0, reply.sent_s - due_s)
        if receiver is not None and reply.error is None and not receiver.response.is_event_stream:
            reply.fail("not_a_stream", f"answered {receiver.response.headers.get('content-type')}")
        return reply

    async def get(self, path: str) -> tuple[Reply, Any]:  # JSON of any server
        """Ask for a JSON document; without one, the second value is `None`."""
        reply = Reply()
        receiver = await self._exchange(self.target.get(path), reply)
        if receiver is None or reply.error is not None:
            return reply, None
        try:
            return reply, orjson.loads(receiver.body)
        except orjson.JSONDecodeError:
            return reply, None

    async def _exchange(self, message: bytes, reply: Reply) -> Receiver | None:
        reply.sent_s = self._clock()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._send(message, reply)
        except TimeoutError:
            reply.fail("timeout", f"no whole answer within {self._timeout_s:g} s")
        except ConnectionRefusedError:
            reply.fail("connection_refused", "nobody listens there")
        except OSError as error:  # ssl.SSLError and name resolution among them
            reply.fail("connection_failed", error.strerror or str(error))
        reply.ended_s = self._clock()
        return None

    async def _send(self, message: bytes, reply: Reply) -> Receiver:
        target = self.target
        transport, receiver = await asyncio.get_running_loop().create_connection(
            lambda: Receiver(self._clock, reply), target.host, target.port, ssl=self._tls
        )
        try:
            reply.sent_s = self._clock()
            transport.write(message)
            await receiver.done
        finally:
            transport.abort()  # nothing is left to send, and the answer has been read
        return receiver

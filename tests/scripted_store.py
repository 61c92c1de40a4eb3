"""A web server that fails as stores of models do, in front of files or of another server."""

import hashlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock
from typing import Literal

Fault = Literal["503", "520", "403", "301", "truncated", "unfinished", "corrupt", "reset"]
_PATIENCE_S = 30
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


@dataclass(slots=True)
class Seen:
    """One request.

    Attributes:
        first: First byte that it asked for, 0 without a range.
    """

    method: str
    path: str
    headers: dict[str, str]
    first: int = 0
    query: str = ""


@dataclass
class ScriptedStore:
    """What the server holds, what it has seen, and what goes wrong.

    Attributes:
        files: Content by path, with `/` in front.
        upstream: Port of the server that answers in place of the files.
        fault: Asked for each `GET` what is to go wrong with it.
        moved: Paths that are redirected, and where to.
        gate: Until it is set, answers to `gated` requests stop in their middle.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    upstream: int | None = None
    fault: Callable[[Seen], Fault | None] = lambda _: None
    moved: Callable[[str], str | None] = lambda _: None
    error_headers: dict[str, str] = field(default_factory=dict)  # of answers that say 404
    gate: Event | None = None
    gated: Callable[[Seen], bool] = lambda _: False
    held: Event = field(default_factory=Event)  # set when an answer stops there
    seen: list[Seen] = field(default_factory=list)
    port: int = 0
    lock: Lock = field(default_factory=Lock)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def gets(self, path: str) -> list[Seen]:
        """The `GET`s of a path, so far."""
        return [each for each in self.seen if (each.method, each.path) == ("GET", path)]


@contextmanager
def scripted_store(store: ScriptedStore) -> Iterator[ScriptedStore]:
    """Serve on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answer."""
            _answer(self, store)

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature is the library's
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that are killed do not say goodbye."""

    server = Server(("127.0.0.1", 0), Handler)
    store.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield store
    finally:
        if store.gate is not None:
            store.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()


def sums_of(files: Mapping[str, bytes]) -> bytes:
    """`SHA256SUMS` of files."""
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()]
    return "".join(lines).encode()


def _answer(handler: BaseHTTPRequestHandler, store: ScriptedStore) -> None:
    headers = {name.lower(): value for name, value in handler.headers.items()}
    match = re.match(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
    path, _, query = handler.path.partition("?")
    seen = Seen(handler.command, path, headers, int(match[1]) if match else 0, query)
    with store.lock:
        fault = store.fault(seen) if seen.method == "GET" else None
        store.seen.append(seen)
    if fault in {"503", "520", "403", "301"}:
        _send(handler, int(fault or 0), {}, b"no")
        return
    if fault == "reset":
        linger = struct.pack("ii", 1, 0)  # close at once, with a reset
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.close_connection = True
        handler.connection.close()
        return
    if fault == "unfinished":
        _send_half_a_chunk(handler)
        return
    target = store.moved(handler.path)
    if target is not None:
        _send(handler, 302, {"Location": target}, b"")
        return
    status, answer, body = _content(handler, store, path, match)
    if fault == "corrupt" and body:
        body = bytes([body[0] ^ 1]) + body[1:]
    gate = store if store.gate is not None and store.gated(seen) else None
    _send(handler, status, answer, body, gate, is_cut=fault == "truncated")


def _send_half_a_chunk(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"64\r\nhalf")
    handler.close_connection = True


def _content(
    handler: BaseHTTPRequestHandler,
    store: ScriptedStore,
    path: str,
    match: re.Match[str] | None,
) -> tuple[int, dict[str, str], bytes]:
    if store.upstream is not None:
        return _ask_upstream(handler, store.upstream)
    content = store.files.get(path)
    if content is None:
        return 404, store.error_headers, b"not here"
    tag = _tag_of(content)
    if handler.headers.get("If-Match", tag) != tag:
        return 412, {}, b""
    if match is None:
        return 200, {"ETag": tag}, content
    start, end = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
    place = f"bytes {start}-{end}/{len(content)}"
    return 206, {"ETag": tag, "Content-Range": place}, content[start : end + 1]


@cache
def _tag_of(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'  # noqa: S324 - an ETag


def _ask_upstream(handler: BaseHTTPRequestHandler, port: int) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(handler.command, handler.path, headers=dict(handler.headers.items()))
        answer = connection.getresponse()
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP}
        if handler.command == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length") or "0"
        return answer.status, headers, answer.read()
    finally:
        connection.close()


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    gate: ScriptedStore | None = None,
    *,
    is_cut: bool = False,
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    if "Content-Length" not in headers:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command == "HEAD":
        return
    middle = len(body) // 2
    handler.wfile.write(body[:middle])
    handler.wfile.flush()
    if is_cut:
        handler.close_connection = True
        return
    if gate is not None and gate.gate is not None:
        gate.held.set()
        gate.gate.wait(_PATIENCE_S)
    handler.wfile.write(body[middle:])

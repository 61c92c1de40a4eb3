"""The receiving end of one HTTP/1.1 answer: bytes in, `data:` lines of server-sent events out.

A general HTTP client costs several times more per event than the reading itself, and a load
generator shares its processors with the server it measures; so this reads the few forms that
a streamed answer takes (chunked, of a known length, until the end of the connection) and no more.
RFC 9112 gives the framing, the HTML standard (section 9.2) the events. Every OpenAI-compatible
server writes an event as one `data:` line; events of several `data:` lines are not joined.
"""

import re

from provider_core.errors import ProviderError

MAX_HEAD_BYTES = 65_536
MAX_CHUNK_LINE_BYTES = 4096

# `int` alone takes signs, underscores and the digits of other scripts, too.
_NUMBER = re.compile(r"[0-9]{1,18}")
_STATUS_LINE = re.compile(r"HTTP/1\.[0-9] ([0-9]{3})(?: .*)?")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)


class BadResponse(ProviderError):
    """The bytes are not an HTTP/1.1 answer."""


class ChunkedDecoder:
    """Takes the chunks of a `Transfer-Encoding: chunked` body apart, however reads cut them.

    Attributes:
        is_done: The last chunk has been seen.
    """

    def __init__(self) -> None:
        self.is_done = False
        self._rest = b""  # the beginning of a line that says a chunk's size
        self._num_left = 0  # bytes of the chunk still to come
        self._num_skipped = 0  # bytes of the line end behind it still to come

    def feed(self, data: bytes) -> bytes:
        """The body's next bytes.

        Raises:
            BadResponse: A chunk's size is not a number, or its line does not end.
        """
        data = self._rest + data
        self._rest = b""
        parts: list[bytes] = []
        at = 0
        while at < len(data) and not self.is_done:
            if self._num_left:
                part = data[at : at + self._num_left]
                parts.append(part)
                at += len(part)
                self._num_left -= len(part)
                self._num_skipped = 0 if self._num_left else 2
            elif self._num_skipped:
                step = min(self._num_skipped, len(data) - at)
                at += step
                self._num_skipped -= step
            else:
                end = data.find(b"\r\n", at)
                if end < 0:
                    self._rest = data[at:]
                    if len(self._rest) > MAX_CHUNK_LINE_BYTES:
                        raise BadResponse(f"no chunk size in {MAX_CHUNK_LINE_BYTES} bytes")
                    break
                self._begin_chunk(data[at:end])
                at = end + 2
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _begin_chunk(self, line: bytes) -> None:
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise BadResponse(f"chunk size {line[:40]!r} is not a number")
        self._num_left = int(match[1], 16)
        self.is_done = not self._num_left


class LengthDecoder:
    """Passes a body of a known length, or one that ends with the connection.

    Args:
        length: Bytes; `None` if only the connection's end tells.
    """

    def __init__(self, length: int | None) -> None:
        self._num_left = length
        self.is_done = length == 0

    def feed(self, data: bytes) -> bytes:
        """The body's next bytes."""
        if self._num_left is None:
            return data
        body = data[: self._num_left]
        self._num_left -= len(body)
        self.is_done = self._num_left == 0
        return body


class LineSplitter:
    """Gathers the payloads of `data:` lines, however reads cut them."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads of the lines that are now whole; comments and other fields are left out."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]


class ResponseReader:
    """One answer: its status and headers, then its body.

    Attributes:
        status: HTTP status, 0 until the head is complete.
        headers: Names in lower case.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._head = b""
        self._body: ChunkedDecoder | LengthDecoder | None = None

    @property
    def is_done(self) -> bool:
        """Whether the body has been read to its end; never if the connection's end tells."""
        return self._body is not None and self._body.is_done

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is server-sent events."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    def feed(self, data: bytes) -> bytes:
        """The body's next bytes.

        Raises:
            BadResponse: It is not HTTP, or the head is too long.
        """
        if self._body is not None:
            return self._body.feed(data)
        self._head += data
        while self._body is None:
            head, blank, rest = self._head.partition(b"\r\n\r\n")
            if not blank:
                if len(self._head) > MAX_HEAD_BYTES:
                    raise BadResponse(f"the head is longer than {MAX_HEAD_BYTES} bytes")
                return b""
            self._read_head(head)
            if 100 <= self.status < 200:  # an interim answer; the real one follows
                self.status, self._head = 0, rest
            else:
                self._body = self._make_decoder()
        return self._body.feed(rest)

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise BadResponse(f"{first[:60]!r} is no HTTP status line")
        self.status = int(match[1])
        pairs = (line.partition(":") for line in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}

    def _make_decoder(self) -> ChunkedDecoder | LengthDecoder:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            return ChunkedDecoder()
        length = self.headers.get("content-length")
        if length is not None and _NUMBER.fullmatch(length) is None:
            raise BadResponse(f"content length {length[:40]!r} is not a number")
        return LengthDecoder(None if length is None else int(length))

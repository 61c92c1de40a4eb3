"""Reading a request body: bounded in size, in time and in slowness."""

import asyncio
from time import monotonic

from aiohttp import web

from provider_core.errors import (
    InvalidRequest,
    RequestTimeout,
    RequestTooLarge,
    UnsupportedMediaType,
)
from provider_core.settings import LimitSettings

_GRACE_S = 5.0  # no least rate before this
_LEAST_BYTES_PER_S = 1024.0  # after it


def check_framing(request: web.Request) -> None:
    """Refuse a transfer coding that we would not undo, and a proxy in front might.

    Raises:
        InvalidRequest: `Transfer-Encoding` is anything but `chunked`.
    """
    coding = request.headers.get("Transfer-Encoding")
    if coding is not None and coding.lower() != "chunked":
        raise InvalidRequest("transfer-encoding must be chunked", code="bad_http")


def check_body_headers(request: web.Request, limits: LimitSettings) -> None:
    """Refuse what the headers alone condemn, before a byte of the body is read.

    Raises:
        RequestTooLarge: The declared length is over the limit.
        UnsupportedMediaType: Not JSON, or encoded.
    """
    length = request.content_length
    if length is not None and length > limits.max_body_bytes:
        raise _too_large(limits)
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedMediaType("content-encoding is not supported; send the body as it is")
    if "Content-Type" in request.headers and request.content_type != "application/json":
        raise UnsupportedMediaType("content-type must be application/json")


async def read_body(request: web.Request, limits: LimitSettings) -> bytes:
    """Read a whole body.

    Raises:
        RequestTooLarge: Over `max_body_bytes`; the rest is not read.
        RequestTimeout: Not complete within `body_timeout_s`, or slower than 1 KiB/s after 5 s.
        InvalidRequest: The transfer encoding is broken.
    """
    check_body_headers(request, limits)
    chunks: list[bytes] = []
    size = 0
    started = monotonic()
    content = request.content
    while not content.at_eof():
        allowed = min(limits.body_timeout_s, max(_GRACE_S, size / _LEAST_BYTES_PER_S))
        left = allowed - (monotonic() - started)
        if left <= 0:
            raise _too_slow(limits)
        try:
            async with asyncio.timeout(left):
                chunk = await content.readany()
        except TimeoutError:
            raise _too_slow(limits) from None
        except web.RequestPayloadError:
            raise InvalidRequest("malformed body", code="bad_http") from None
        size += len(chunk)
        if size > limits.max_body_bytes:
            raise _too_large(limits)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limits: LimitSettings) -> RequestTooLarge:
    return RequestTooLarge(f"request body exceeds the limit of {limits.max_body_bytes} bytes")


def _too_slow(limits: LimitSettings) -> RequestTimeout:
    return RequestTimeout(
        f"request body was not complete within {limits.body_timeout_s:g} s, "
        f"or slower than {_LEAST_BYTES_PER_S:g} bytes/s"
    )

"""Identifiers: ULIDs, which sort by time and cannot be guessed.

A ULID (github.com/ulid/spec) is 48 bits of Unix milliseconds and 80 random bits, written as 26
characters of Crockford's base 32. Two characters are looked up at a time.
"""

import hashlib
import os
import re
import time

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]

_CLIENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def make_ulid() -> str:
    """Make a ULID of now."""
    milliseconds = time.time_ns() // 1_000_000
    bits = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    pairs = _PAIRS
    return (
        pairs[bits >> 120 & 1023]
        + pairs[bits >> 110 & 1023]
        + pairs[bits >> 100 & 1023]
        + pairs[bits >> 90 & 1023]
        + pairs[bits >> 80 & 1023]
        + pairs[bits >> 70 & 1023]
        + pairs[bits >> 60 & 1023]
        + pairs[bits >> 50 & 1023]
        + pairs[bits >> 40 & 1023]
        + pairs[bits >> 30 & 1023]
        + pairs[bits >> 20 & 1023]
        + pairs[bits >> 10 & 1023]
        + pairs[bits & 1023]
    )


def make_generation_id() -> str:
    """Name one generation; made at admission, never from what a client sent."""
    return "gen-" + make_ulid()


def make_request_id() -> str:
    """Name one HTTP request; made when it is accepted."""
    return "req-" + make_ulid()


def clean_client_request_id(value: str | None) -> str | None:
    """Keep a client's own request id if it is harmless; it only ever correlates logs."""
    return value if value is not None and _CLIENT_ID.fullmatch(value) else None


def digest_of_key(value: str | None) -> str | None:
    """The digest of a client's name for its request, in hexadecimal; the name may say anything."""
    if value is None:
        return None
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()

"""Request bodies: bytes to one JSON object, with everything ambiguous refused.

orjson refuses what RFC 8259 leaves open or forbids and Python's own parser lets through: a byte
order mark, UTF-16, `NaN`, numbers that overflow to infinity, lone surrogates, invalid UTF-8. Of
duplicate keys the last one wins. Integers beyond 64 bit become floats, which no integer field
accepts. What is left to check here are the root and the depth.
"""

import re
from typing import Any

import numpy as np
import orjson

from provider_core.errors import InvalidRequest

MAX_DEPTH = 64

_FIELD = re.compile(r'"([A-Za-z0-9_]{1,64})"\s*:')
_FIELD_REACH = 256  # characters before an error in which a field's name is looked for
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))
_DEPTH_STEPS = bytes.maketrans(b'"[{]}', b"\x00\x01\x01\xff\xff")  # as int8: 0, 1, 1, -1, -1


def parse_json_object(body: bytes) -> dict[str, Any]:  # JSON values of any kind
    """Parse a request body.

    Raises:
        InvalidRequest: It is not one JSON object, or nests deeper than `MAX_DEPTH`; the code is
            `invalid_json`.
    """
    if not body:
        raise InvalidRequest("the request body is empty", code="invalid_json")
    try:
        root = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _invalid_json(error) from None
    if not isinstance(root, dict):
        raise InvalidRequest("the request body must be a JSON object", code="invalid_json")
    # Counting opening brackets, those in strings too, settles almost every request.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise InvalidRequest(
            f"the request body nests deeper than {MAX_DEPTH} levels", code="invalid_json"
        )
    return root


def _invalid_json(error: orjson.JSONDecodeError) -> InvalidRequest:
    """Say where, and after which field's name: NaN and lone surrogates are a field's value."""
    before = error.doc[max(error.pos - _FIELD_REACH, 0) : error.pos]
    names = _FIELD.findall(before)
    return InvalidRequest(
        "the request body is not valid JSON in UTF-8: "
        f"see line {error.lineno}, column {error.colno}"
        + (f", in or after the field {names[-1]!r}" if names else ""),
        code="invalid_json",
    )


def _depth(body: bytes) -> int:
    """Deepest nesting of valid JSON, in linear time and without an object per value."""
    # Runs of backslashes start with one that escapes, so pairs vanish first, then quotes.
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = unescaped.translate(None, _NOT_STRUCTURE)
    num_quotes = np.cumsum(np.frombuffer(structure, np.uint8) == ord('"'), dtype=np.uint8)
    is_outside = (num_quotes & 1 ^ 1).view(np.int8)  # of strings; parity survives wrapping
    steps = np.frombuffer(structure.translate(_DEPTH_STEPS), np.int8)
    return int(np.cumsum(steps * is_outside, dtype=np.int32).max(initial=0))

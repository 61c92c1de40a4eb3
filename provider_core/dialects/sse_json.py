"""JSON for server-sent events: no byte of it can end a line for any client."""

from typing import Any

import orjson

# Clients that split a stream by `str.splitlines` would cut an event at these.
_LINE_BREAKS = (
    ("\u0085".encode(), b"\\u0085"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def dumps(value: Any) -> bytes:  # any JSON value
    """Encode a value as one line."""
    json = orjson.dumps(value)
    if not json.isascii():
        for character, escape in _LINE_BREAKS:
            json = json.replace(character, escape)
    return json

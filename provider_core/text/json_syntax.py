"""Whether what a model wrote as JSON is JSON.

The grammar alone decides (RFC 8259), never what a reader can hold: a number may have any exponent
and any number of digits, and is then read as infinite by some.
"""

import json
from typing import Never


def is_json(text: str) -> bool:
    """Whether a text is one JSON value, nested no deeper than the interpreter can follow."""
    return _read(text) is not _NOTHING


def is_json_object(text: str) -> bool:
    """Whether a text is one JSON object; see `is_json`."""
    return isinstance(_read(text), dict)


def _read(text: str) -> object:
    try:
        value: object = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return _NOTHING
    return value


def _refuse(name: str) -> Never:
    """Refuse what Python writes and JSON does not have."""
    raise ValueError(name)


_NOTHING = object()
_DECODER = json.JSONDecoder(parse_int=float, parse_constant=_refuse)

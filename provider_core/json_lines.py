"""One JSON object a line, in plain ASCII: the form of every log and usage line.

ASCII because a lone surrogate (how a Latin-1 header byte reaches a handler) makes orjson raise,
and because U+2028 and its like split a line in readers that know Unicode line breaks. Both would
lose or forge a line, and some of these lines are bills.
"""

import json
import re
import time
from collections.abc import Mapping
from functools import lru_cache

import orjson

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0 and C1 controls
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"  # line separators and bidi controls
)
_MAX_INTEGER = 2**53 - 1  # what every JSON reader keeps exact


def encode_line(fields: Mapping[str, object]) -> bytes:
    """Encode one line. Never raises.

    Args:
        fields: JSON values; anything else appears as the name of its type, NaN as null.

    Returns:
        ASCII without raw control bytes, ended by a newline.
    """
    try:
        line = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # lone surrogates, integers beyond 64 bits, foreign types
        line = _dump_anything(fields)
    if not line.isascii() or b"\x7f" in line:
        # json.loads accepts whatever either encoder wrote, so this cannot fail.
        text = json.dumps(json.loads(line), separators=(",", ":"))
        line = text.replace("\x7f", "\\u007f").encode() + b"\n"
    return line


def format_timestamp(unix_s: float) -> str:
    """Write a time as RFC 3339 in UTC with six decimals, e.g. `2026-11-20T22:40:01.482913Z`."""
    second, microsecond = divmod(int(unix_s * 1_000_000 + 0.5), 1_000_000)
    return f"{_format_second(second)}.{microsecond:06d}Z"


@lru_cache(maxsize=64)
def _format_second(unix_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_s))


def sanitize(text: str, max_bytes: int) -> str:
    """Make a client's string fit to be logged. Never raises.

    Args:
        text: Any string, lone surrogates included.
        max_bytes: Of the UTF-8 result.

    Returns:
        Valid Unicode without control, line-separating and bidirectional formatting characters,
        cut on a character boundary.
    """
    if len(text) <= max_bytes and text.isascii() and text.isprintable():
        return text
    text = text[: 4 * max_bytes]  # a megabyte is worth no more work than that
    if not text.isascii():
        text = _utf8(text).decode("utf-8", "replace")
    if not text.isprintable():
        text = _UNPRINTABLE.sub("", text)
    encoded = text.encode()
    return text if len(encoded) <= max_bytes else encoded[:max_bytes].decode("utf-8", "ignore")


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")  # undoes what the HTTP parser did
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _dump_anything(fields: Mapping[str, object]) -> bytes:
    try:
        text = json.dumps(
            dict(fields), allow_nan=False, skipkeys=True, separators=(",", ":"), default=_type_name
        )
    except (ValueError, TypeError, RecursionError):  # NaN, cycles, integers of 4,300 digits
        shallow = {str(key): _shallow(value) for key, value in fields.items()}
        text = json.dumps(shallow, separators=(",", ":"))
    return text.replace("\x7f", "\\u007f").encode() + b"\n"


def _shallow(value: object) -> object:
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        return _type_name(value)
    is_plain = value is None or isinstance(value, str | int)
    return value if is_plain else _type_name(value)


def _type_name(value: object) -> str:
    return f"<{type(value).__name__}>"

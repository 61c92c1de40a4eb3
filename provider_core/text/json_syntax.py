"""Whether what a model wrote as JSON is JSON, and whether everybody can read it."""

import json
import math
from typing import Never


def is_json(text: str) -> bool:
    """Whether a text is one JSON value (RFC 8259), nested no deeper than Python can follow.

    A number may have any exponent and any number of digits.
    """
    try:
        _ANY_NUMBERS.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def is_readable_object(text: str) -> bool:
    """Whether a text is a JSON object of numbers that 64-bit floats hold (RFC 8259, section 6).

    Readers may fail on other numbers, and with them on the whole document.
    """
    try:
        return isinstance(_FINITE_NUMBERS.decode(text), dict)
    except (ValueError, RecursionError):
        return False


def _refuse(name: str) -> Never:
    """Refuse what Python writes and JSON does not have."""
    raise ValueError(name)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(digits)
    return number


_ANY_NUMBERS = json.JSONDecoder(parse_int=float, parse_constant=_refuse)
_FINITE_NUMBERS = json.JSONDecoder(parse_int=_finite, parse_float=_finite, parse_constant=_refuse)

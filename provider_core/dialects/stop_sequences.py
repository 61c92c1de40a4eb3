"""Texts that end an answer, in the dialects that call them stop sequences."""

from typing import Any

from provider_core.dialects.validation import bad_value, wrong_type

MAX_STOP_SEQUENCES = 16
MAX_STOP_BYTES = 256


def parse_stop_sequences(values: list[Any] | None, param: str) -> tuple[str, ...]:
    """Check stop sequences.

    Args:
        values: JSON values of any kind.
        param: The field's name, for errors.

    Raises:
        InvalidRequest: Too many, or one is no string, empty or too long.
    """
    if values is None:
        return ()
    if len(values) > MAX_STOP_SEQUENCES:
        raise bad_value(param, f"must hold at most {MAX_STOP_SEQUENCES} strings, not {len(values)}")
    for value in values:
        if not isinstance(value, str):
            raise wrong_type(param, "an array of strings", value)
        if not value:
            raise bad_value(param, "must not hold an empty string")
        if len(value) > MAX_STOP_BYTES or len(value.encode()) > MAX_STOP_BYTES:
            raise bad_value(param, f"must hold strings of at most {MAX_STOP_BYTES} bytes")
    return tuple(values)

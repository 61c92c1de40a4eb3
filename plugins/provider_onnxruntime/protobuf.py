"""The protobuf wire format, as much of it as reading an ONNX file's skeleton takes.

The encoding: https://protobuf.dev/programming-guides/encoding/. Payloads are views into the file,
so that gigabytes of weights are stepped over and never read.
"""

from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_VARINT_BYTES = 10
_MORE = 0x80  # of a number, in the bytes that follow: most are one byte


class MalformedMessage(ValueError):
    """The bytes are not a protobuf message."""


def read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield each field's number and its value: an int, or a view of length-delimited bytes.

    Raises:
        MalformedMessage: A field leaves the message, or has a wire type that ONNX never uses.
    """
    position, end = 0, len(message)
    while position < end:
        tag, position = message[position], position + 1
        if tag >= _MORE:
            tag, position = _read_varint(message, position - 1)
        wire_type = tag & 7
        if wire_type in {VARINT, LENGTH} and position < end:
            number, position = message[position], position + 1
            if number >= _MORE:
                number, position = _read_varint(message, position - 1)
            if wire_type == VARINT:
                yield tag >> 3, number
                continue
            size = number
        elif wire_type in {FIXED32, FIXED64}:
            size = 4 if wire_type == FIXED32 else 8
        else:
            raise MalformedMessage(f"wire type {wire_type} at byte {position} of {end}")
        if size > end - position:
            raise MalformedMessage(f"a field of {size} bytes at byte {position} of {end}")
        yield tag >> 3, message[position : position + size]
        position += size


def read_varints(value: int | memoryview) -> Iterator[int]:
    """Values of a repeated integer field, packed or not."""
    if isinstance(value, int):
        yield value
        return
    position = 0
    while position < len(value):
        number, position = _read_varint(value, position)
        yield number


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    number = 0
    for index, byte in enumerate(message[position : position + MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * index
        if byte < _MORE:
            return number, position + index + 1
    raise MalformedMessage(f"no end of the number at byte {position}")

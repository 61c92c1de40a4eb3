"""Frames: how records lie in a journal's file, one a line, each with its checksum.

::

    CRC32(8 hex digits) SP JSON LF

A payload is ASCII JSON without a newline, so a file can be followed with `tail` and cut at any
line. Whatever does not match its checksum is damage: at the end of a file the tail of a write that
a crash cut, elsewhere a fault of the disk.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from zlib import crc32

_PREFIX_BYTES = 9
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no frame.

    Attributes:
        offset: Of the first, in its file.
        data: All of them.
        is_tail: Nothing follows them.
    """

    offset: int
    data: bytes
    is_tail: bool


def encode_frame(payload: bytes) -> bytes:
    """Make a frame of one line of JSON without its newline."""
    return b"%08x %b\n" % (crc32(payload), payload)


def decode_frame(line: bytes) -> bytes | None:
    """Take the payload out of one line, newline included; `None` if it is damaged."""
    payload = line[_PREFIX_BYTES:-1]
    return payload if line == encode_frame(payload) else None


def read_frames(path: Path) -> Iterator[bytes | Damage]:
    """Read a file that nobody writes any more: payloads and what lies between them.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        yield from split_frames(file, decode_frame)


def split_frames(
    lines: Iterable[bytes], decode: Callable[[bytes], T | None]
) -> Iterator[T | Damage]:
    """Tell frames from damage in the lines of a file, newlines included.

    Args:
        lines: Of the file.
        decode: Makes something of one line; `None` if it is damaged.
    """
    offset = 0
    damaged: list[bytes] = []
    damaged_at = 0
    for line in lines:
        payload = decode(line)
        if payload is None:
            damaged_at = damaged_at if damaged else offset
            damaged.append(line)
        else:
            if damaged:
                yield Damage(damaged_at, b"".join(damaged), is_tail=False)
                damaged = []
            yield payload
        offset += len(line)
    if damaged:
        yield Damage(damaged_at, b"".join(damaged), is_tail=True)

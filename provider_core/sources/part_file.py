"""A file on its way: a sparse file that knows which of its ranges are on disk.

Behind the content stands one byte per range, 1 for those that are there. A range is marked once
its bytes are synced, so that a process or a machine that dies loses ranges, and never takes one
that is not there for one that is.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Self


class PartFile:
    """One such file, opened or taken up where another process left it.

    Args:
        path: Of the file; its folder is made.
        size_bytes: Of the content.
        range_bytes: Of each range but the last.
    """

    def __init__(self, path: Path, size_bytes: int, range_bytes: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._size_bytes = size_bytes
        self._range_bytes = range_bytes
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        num_ranges = -(-size_bytes // range_bytes)
        if os.fstat(self._fd).st_size == size_bytes + num_ranges:
            self._marks = bytearray(os.pread(self._fd, num_ranges, size_bytes))
        else:  # new, or of other ranges
            self._marks = bytearray(num_ranges)
            self.reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    @property
    def missing(self) -> list[int]:
        """Numbers of the ranges that are not there."""
        return [index for index, mark in enumerate(self._marks) if not mark]

    @property
    def num_bytes(self) -> int:
        """How much of the content is there."""
        missing = (self.bounds(index) for index in self.missing)
        return self._size_bytes - sum(end - start for start, end in missing)

    def bounds(self, index: int) -> tuple[int, int]:
        """The first byte of a range, and the one behind its last."""
        start = index * self._range_bytes
        return start, min(start + self._range_bytes, self._size_bytes)

    def has(self, index: int) -> bool:
        """Whether a range is there; there is none behind the last."""
        return index < len(self._marks) and bool(self._marks[index])

    def write(self, position: int, piece: bytes | memoryview) -> None:
        """Write a piece of a range. Threads may write different ranges at once."""
        rest = memoryview(piece)
        while rest:
            num_written = os.pwrite(self._fd, rest, position)
            position += num_written
            rest = rest[num_written:]

    def mark(self, index: int) -> None:
        """Say that a range is written; on return it is on disk."""
        os.fdatasync(self._fd)
        self._marks[index] = 1
        os.pwrite(self._fd, b"\1", self._size_bytes + index)

    def read(self, index: int) -> bytes:
        """The bytes of a range that is there."""
        start, end = self.bounds(index)
        return os.pread(self._fd, end - start, start)

    def reset(self) -> None:
        """Begin anew, with nothing there."""
        self._marks[:] = bytes(len(self._marks))
        os.ftruncate(self._fd, 0)
        os.ftruncate(self._fd, self._size_bytes + len(self._marks))

    def move_to(self, path: Path) -> None:
        """Give the content, all of which is there, its final name."""
        os.ftruncate(self._fd, self._size_bytes)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path.replace(path)

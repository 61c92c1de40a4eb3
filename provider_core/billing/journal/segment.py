"""One file of a journal while it is being written, and the names of all of them."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from provider_core.billing.journal import records
from provider_core.billing.journal.disk import Disk
from provider_core.billing.journal.frames import encode_frame

_NAME = re.compile(r"usage-([0-9A-Z]{26})-([0-9]{6,})\.jnl")


def segment_path(directory: Path, boot_id: str, number: int) -> Path:
    """Where a boot's nth file lies."""
    return directory / f"usage-{boot_id}-{number:06d}.jnl"


def lock_path(directory: Path, boot_id: str) -> Path:
    """The file whose lock says that a boot lives."""
    return directory / f"usage-{boot_id}.lock"


def segments_by_boot(directory: Path) -> dict[str, dict[int, Path]]:
    """Every boot's files by their number, the oldest boot first.

    Raises:
        OSError: The folder cannot be read.
    """
    boots: dict[str, dict[int, Path]] = {}
    for path in sorted(directory.iterdir()):
        name = _NAME.fullmatch(path.name)
        if name is not None:
            boots.setdefault(name[1], {})[int(name[2])] = path
    return boots


def is_closed(segments: Mapping[int, Path]) -> bool:
    """Whether the boot of these files ended owing nothing.

    Raises:
        OSError: The last cannot be read.
    """
    last = encode_frame(records.closed())
    with segments[max(segments)].open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - len(last), 0))
        return file.read() == last


class Segment:
    """A file that frames are appended to, until it is full or fails.

    After a failure a segment is not to be written again: the kernel may have dropped what it could
    not write and call the next sync a success. What was not synced belongs into a new one.

    Args:
        disk: The operating system.
        path: Must not exist.

    Attributes:
        size: Bytes of whole frames, in the order they were given.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        self.path = path
        self.size = 0
        self._disk = disk
        self._fd = disk.create(path)

    def write(self, data: bytes) -> None:
        """Append whole frames; on failure leave none of them, as far as that is possible.

        Raises:
            OSError: As `write(2)`; a write of nothing counts as a full disk.
        """
        view = memoryview(data)
        try:
            while view:
                view = view[self._disk.write(self._fd, view) :]
        except OSError:
            with suppress(OSError):
                self._disk.truncate(self._fd, self.size)
            raise
        self.size += len(data)

    def sync(self) -> None:
        """Bring everything to the disk.

        Raises:
            OSError: Nobody knows what is on the disk.
        """
        self._disk.sync(self._fd)

    def close(self) -> None:
        """Close the file. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._disk.close(fd)

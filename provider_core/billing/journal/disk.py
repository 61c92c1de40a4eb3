"""What a journal asks of the operating system, in one place that a test can replace.

A write may be short and an `fdatasync` may fail once and then lie (fsync(2) of Linux: after an
error the pages count as clean), so nothing here tries again; `segment` says what a failure means.
"""

import fcntl
import os
from pathlib import Path


class Disk:
    """The system's own calls. Every method raises `OSError`."""

    def reach(self, point: str) -> None:
        """Pass a labelled point of the protocol; tests crash here."""

    def create(self, path: Path) -> int:
        """Make a new file that only we may read, and open it for appending."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write some of it and say how much."""
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """Bring a file's data to the disk."""
        os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(fd, size)

    def close(self, fd: int) -> None:
        """Close a file."""
        os.close(fd)

    def sync_dir(self, directory: Path) -> None:
        """Bring a folder's entries to the disk."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: Path) -> int | None:
        """Take a lock that ends with the process; `None` if another process has it.

        Returns:
            The descriptor that holds it.
        """
        fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError:
            os.close(fd)
            raise
        return fd

    def free_bytes(self, directory: Path) -> int:
        """What an ordinary user may still write."""
        system = os.statvfs(directory)
        return system.f_bavail * system.f_frsize

"""Which files of a journal may go: those whose every line the log has, and that are old enough."""

import time
from collections.abc import Collection, Iterator
from pathlib import Path

from provider_core.billing.journal.segment import is_closed, segments_by_boot


def delete_written(
    directory: Path, boot_id: str, in_use: Collection[Path], *, older_than_s: float
) -> None:
    """Delete what no start and no emitter will read again.

    Args:
        directory: The journal's folder.
        boot_id: Of the boot that lives here.
        in_use: Its files that are not read to their end yet.
        older_than_s: Since they were last written; a whole boot goes at once.

    Raises:
        OSError: The folder cannot be read, or a file not deleted.
    """
    for path in _deletable(directory, boot_id, in_use, time.time() - older_than_s):
        path.unlink(missing_ok=True)


def size_bytes(directory: Path) -> int:
    """Of all files of a journal's folder.

    Raises:
        OSError: The folder cannot be read.
    """
    return sum(
        path.stat().st_size
        for segments in segments_by_boot(directory).values()
        for path in segments.values()
    )


def _deletable(
    directory: Path, own_boot_id: str, in_use: Collection[Path], latest_s: float
) -> Iterator[Path]:
    for boot_id, segments in segments_by_boot(directory).items():
        if boot_id == own_boot_id:
            written = [path for path in segments.values() if path not in in_use]
            yield from (path for path in written if path.stat().st_mtime <= latest_s)
        elif is_closed(segments) and segments[max(segments)].stat().st_mtime <= latest_s:
            yield from segments.values()

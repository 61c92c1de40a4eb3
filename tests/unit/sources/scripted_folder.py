"""A model's folder in memory, which fails as it is told."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock

from provider_core.sources.remote import RemoteFile, SourceUnavailable

RANGE = 1000

Change = Callable[[int, bytes], bytes]


@dataclass
class ScriptedFolder:
    """A source.

    Attributes:
        content: By path.
        has_sums: Whether it gives checksums.
        change: Given the number of a read, from 0 on, and what it would answer, what it answers.
        reads: Path and bounds of each read.
    """

    content: dict[str, bytes]
    has_sums: bool = True
    uri: str = "test://folder/tiny"
    change: Change = lambda _, piece: piece
    reads: list[tuple[str, int, int]] = field(default_factory=list)
    num_listed: int = 0
    lock: Lock = field(default_factory=Lock)

    def list_files(self) -> Sequence[RemoteFile]:
        """What is there."""
        self.num_listed += 1
        return [
            RemoteFile(
                path=path,
                size_bytes=len(content),
                version=hashlib.md5(content).hexdigest(),  # noqa: S324 - as S3's
                sha256=hashlib.sha256(content).hexdigest() if self.has_sums else None,
            )
            for path, content in self.content.items()
        ]

    def read(self, file: RemoteFile, start: int, end: int) -> Iterator[bytes]:
        """Answer in pieces."""
        with self.lock:
            number = len(self.reads)
            self.reads.append((file.path, start, end))
        piece = self.change(number, self.content[file.path][start:end])
        yield piece[: len(piece) // 2]
        yield piece[len(piece) // 2 :]


def failing(*numbers: int) -> Change:
    """Some reads fail."""

    def change(number: int, piece: bytes) -> bytes:
        if number in numbers:
            raise SourceUnavailable("busy")
        return piece

    return change

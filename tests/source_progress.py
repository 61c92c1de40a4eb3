"""Hears how a fetch goes, for tests."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class NotedProgress:
    """Notes what it hears.

    Attributes:
        steps: Pairs of bytes that are here and bytes in all.
        small: Names in the folder when all but the weights was said to be there.
    """

    steps: list[tuple[int, int]] = field(default_factory=list)
    small: list[list[str]] = field(default_factory=list)

    def advance(self, num_bytes: int, total_bytes: int) -> None:
        """Note it."""
        self.steps.append((num_bytes, total_bytes))

    def small_files_ready(self, folder: Path) -> None:
        """Note what is there."""
        self.small.append(sorted(path.name for path in folder.rglob("*") if path.is_file()))

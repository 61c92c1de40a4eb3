"""How far a fetch is, in the log."""

import time
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger()

_EVERY_S = 10.0


class LoggedProgress:
    """Says so at once, and then every ten seconds.

    Args:
        fields: Of each line, such as the model's id.
    """

    def __init__(self, **fields: Any) -> None:  # whatever structlog takes
        self._fields = fields
        self._next_s = 0.0

    def advance(self, num_bytes: int, total_bytes: int) -> None:
        """Log it, if it is time."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + _EVERY_S
            share = percent(num_bytes, total_bytes)
            log.info("model.fetching", bytes=num_bytes, percent=share, **self._fields)

    def small_files_ready(self, folder: Path) -> None:
        """Nobody waits for them."""


def percent(num_bytes: int, total_bytes: int) -> int:
    """Whole percents; 100 of nothing."""
    return 100 * num_bytes // total_bytes if total_bytes else 100

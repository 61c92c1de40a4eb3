"""Logging that is put back as it was."""

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from provider_core.observability import LineWriter, start_logging
from provider_core.settings import LoggingSettings

ReadLines = Callable[[], list[dict[str, Any]]]
"""Stops logging and returns what was logged."""


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Undo what `start_logging` does to the process."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    hooks = threading.excepthook, sys.unraisablehook
    yield
    root.handlers, root.level = handlers, level
    threading.excepthook, sys.unraisablehook = hooks
    structlog.reset_defaults()


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    """Where lines go."""
    return tmp_path / "log"


@pytest.fixture
def writer(log_path: Path, logging_restored: None) -> Iterator[LineWriter]:
    """Logging into a file, everything from debug up."""
    with log_path.open("wb") as file:
        writer = start_logging(LoggingSettings(level="debug"), file.fileno())
    yield writer
    writer.close()


@pytest.fixture
def read_lines(writer: LineWriter, log_path: Path) -> ReadLines:
    """Read what was logged so far, once."""

    def read() -> list[dict[str, Any]]:
        writer.close()
        return [json.loads(line) for line in log_path.read_bytes().splitlines()]

    return read

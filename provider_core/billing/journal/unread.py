"""What journals hold beyond what somebody has read of them: events in batches, boot by boot."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from provider_core.billing.journal import records
from provider_core.billing.journal.frames import Damage
from provider_core.billing.journal.segment import segments_by_boot

_BATCH = 500  # events of one transaction; others come in between

Batch = tuple[Sequence[Mapping[str, Any]], Mapping[str, int]]
"""Events, and the sizes of files that were read to their end."""


def unread_events(journal_dir: Path, known: Mapping[str, int], *, but_boot: str) -> Iterator[Batch]:
    """Read the files that are new or have grown.

    Args:
        journal_dir: Of the journal.
        known: Names of files and their sizes as they were read.
        but_boot: Whose events are not wanted: those of the reader's own process.
    """
    for boot, segments in segments_by_boot(journal_dir).items():
        for path in segments.values() if boot != but_boot else ():
            with suppress(FileNotFoundError):  # too old meanwhile
                size = path.stat().st_size
                if known.get(path.name) == size:
                    continue
                events = _events_of(path)
                while batch := list(islice(events, _BATCH)):
                    yield batch, {}
                yield [], {path.name: size}


def _events_of(path: Path) -> Iterator[Mapping[str, object]]:
    """Every usage event of a journal's file, damage left out."""
    for record in records.read_records(path):
        if not isinstance(record, Damage) and record["rec"] == "F":
            yield record["body"]

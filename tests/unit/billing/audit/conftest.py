"""A journal and its log, of bills of every kind, for tests that lose and change lines."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from provider_core.billing.audit.books import Books
from provider_core.billing.audit.reconcile import Finding, reconcile
from provider_core.billing.audit.sources import read_source
from provider_core.billing.events import encode_event
from provider_core.types import Usage
from tests.unit.billing.journals import Log, QuickDisk, boot

NUM_SERVED = 12
MAX_REQUEST_S = 3600.0
Line = bytes


@dataclass
class Written:
    """What a boot left: its journal, and what it wrote.

    Attributes:
        journal: The folder.
        log: The file.
    """

    journal: Path
    log: Path

    @property
    def lines(self) -> list[Line]:
        """Of the log."""
        return self.log.read_bytes().splitlines(keepends=True)

    @property
    def event_ids(self) -> list[str]:
        """Of finals and adjustments, in the log's order."""
        events = map(orjson.loads, self.lines)
        return [event["event_id"] for event in events if "event_id" in event]

    def rewrite(self, change: Callable[[list[Line]], list[Line]]) -> None:
        """Change the log."""
        self.log.write_bytes(b"".join(change(self.lines)))

    def findings(
        self, *, with_journal: bool = True, collector: Path | None = None
    ) -> list[Finding]:
        """Reconcile."""
        with Books() as books:
            if with_journal:
                books.read("journal", read_source(self.journal))
            books.read("log", read_source(self.log))
            if collector is not None:
                books.read("collector", read_source(collector))
            return reconcile(books, now_s=4e9, max_request_s=MAX_REQUEST_S)

    def discrepancies(self, *, with_journal: bool = True) -> list[tuple[str, str]]:
        """Kinds and subjects of what puts a bill in doubt."""
        found = self.findings(with_journal=with_journal)
        return [(one.kind, one.subject) for one in found if one.is_discrepancy]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """A boot that served, was left by clients, failed, took a bill back, and ended well."""
    journal, log = tmp_path / "journal", Log()
    with boot(journal, log, disk=QuickDisk()) as started:
        started.serve(NUM_SERVED)
        used = Usage(prompt_tokens=9, completion_tokens=3, generated_tokens=5)
        started.settle(status="cancelled", usage=used, finish_reason=None)
        started.settle(status="error", usage=used, finish_reason="error", error_code="engine_error")
        whole = started.open(stream=False)
        started.settle(whole)
        whole.conclude(is_sent=False)
    path = tmp_path / "usage.log"
    path.write_bytes(b"".join(log.lines))
    return Written(journal, path)


def reworded(line: Line, *, is_rehashed: bool = False, **fields: object) -> Line:
    """A line with other values, by default with the hash that it had."""
    event = {**orjson.loads(line), **fields}
    return encode_event(event) if is_rehashed else orjson.dumps(event) + b"\n"

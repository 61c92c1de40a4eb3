"""`usage.open`: a line at each admission, if the operator wants it, that shows what is missing."""

from pathlib import Path

import pytest

from provider_core.billing.audit.books import Books
from provider_core.billing.audit.reconcile import Finding, reconcile
from provider_core.billing.audit.sources import read_lines
from provider_core.billing.settlement import Ledger
from provider_core.json_lines import encode_line
from provider_core.types import Usage
from tests.unit.billing.conftest import MODEL, HandClock, ListSink, Open
from tests.unit.billing.journals import SETTINGS, Log, QuickDisk, boot, recovered, until

LOGGED = SETTINGS.model_copy(update={"log_open": True})


def findings(lines: list[bytes], *, now_s: float = 4e9) -> list[Finding]:
    """What a collector that has only the log finds."""
    with Books() as books:
        books.read("log", read_lines(lines, "log"))
        return reconcile(books, now_s=now_s, max_request_s=3600)


def test_an_admission_is_logged_before_its_bill(tmp_path: Path) -> None:
    """Both lines name the same generation; the first counts in no total and has no number."""
    log = Log()
    with boot(tmp_path, log, disk=QuickDisk(), settings=LOGGED) as server:
        served = server.serve(3)
        opened = server.open(stream=False, n=2)
        until(lambda: len(log.events("usage.open")) == 4)
        server.settle(opened, status="error", finish_reason=None)
    lines = log.events("usage.open", "usage.final")
    ids = [event["generation_id"] for event in lines]
    assert ids == [*sorted(2 * served, key=served.index), *2 * [opened.generation_id]]
    assert [event["event"] for event in lines] == 4 * ["usage.open", "usage.final"]
    for admission, final in zip(lines[::2], lines[1::2], strict=True):
        shared = admission.keys() - {"event", "timestamp"}
        assert {name: final[name] for name in shared} == {name: admission[name] for name in shared}
        assert admission["timestamp"] == final["admitted_at"]
    (beat,) = log.events("usage.heartbeat")
    assert (beat["last_seq"], beat["finals"]) == (4, 4)
    assert findings(log.lines) == []


def test_nothing_is_logged_by_default(tmp_path: Path) -> None:
    """The journal knows, and that is enough for a start after a crash."""
    log = Log()
    with boot(tmp_path, log, disk=QuickDisk()) as server:
        server.serve(2)
    assert log.events("usage.open") == []


def test_a_bill_that_a_crash_took_is_named_until_it_is_recovered(tmp_path: Path) -> None:
    """By the log alone; the next start settles it, and writes no admission again."""
    log = Log()
    with boot(tmp_path, log, disk=QuickDisk(), settings=LOGGED, is_crashing=True) as server:
        server.serve()
        opened = server.open()
        server.journal.flush(20)
        until(lambda: len(log.events("usage.open")) == 2)
    (found,) = findings(log.lines)
    assert (found.kind, found.subject) == ("open_without_final", opened.generation_id)
    assert findings(log.lines, now_s=server.clock.time() + 60) == []

    later = recovered(tmp_path, LOGGED)
    assert [event["event"] for event in later] == ["usage.final"]
    assert findings([*log.lines, *map(encode_line, later)]) == []


def test_a_log_that_takes_nothing_delays_admissions_too(tmp_path: Path) -> None:
    """In order, once it reads again."""
    log = Log(takes=False)
    with boot(tmp_path, log, disk=QuickDisk(), settings=LOGGED) as server:
        server.serve(2)
        log.takes = True
    names = [event["event"] for event in log.events("usage.open", "usage.final")]
    assert sorted(names) == ["usage.final"] * 2 + ["usage.open"] * 2
    assert names[0] == "usage.open"


def test_without_a_journal_the_ledger_writes_it(
    sink: ListSink, clock: HandClock, ledger: Ledger, open_settlement: Open
) -> None:
    """As it admits, when asked to."""
    open_settlement()
    assert sink.lines == []
    ledger._logs_open = True
    settlement = open_settlement()
    (admission,) = sink.events
    assert (admission["event"], admission["model"]) == ("usage.open", MODEL.id)
    assert admission["generation_id"] == settlement.generation_id
    settlement.settle(status="ok", usage=Usage(completion_tokens=1), finish_reason="stop")
    assert [event["event"] for event in sink.events] == ["usage.open", "usage.final"]


@pytest.mark.parametrize(
    ("name", "value"), [("received_at", "yesterday"), ("n", 0), ("generation_id", None)]
)
def test_a_line_that_is_none_is_invalid(
    ledger: Ledger, sink: ListSink, open_settlement: Open, name: str, value: object
) -> None:
    """It is named, and nothing is expected of it."""
    ledger._logs_open = True
    open_settlement()
    line = encode_line({**sink.events[0], name: value})
    assert {found.kind for found in findings([line])} == {"invalid"}

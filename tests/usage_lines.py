"""Every usage line that a test's server or ledger writes, to be checked when the test ends."""

import orjson

from provider_core.billing.audit.books import Books
from provider_core.billing.audit.line_rules import faults
from provider_core.billing.audit.reconcile import Finding, reconcile
from provider_core.billing.audit.sources import read_lines

_SEEN: list[bytes] = []


def note(line: bytes) -> None:
    """Keep a line that was written; from any thread."""
    _SEEN.append(line)


def drain() -> list[bytes]:
    """What was noted, once."""
    lines, _SEEN[:] = list(_SEEN), []
    return lines


def faults_of(lines: list[bytes]) -> list[str]:
    """Every rule that one of some lines breaks."""
    return [
        f"{fault.kind}: {fault.detail}: {line!r}"
        for line in lines
        for fault in faults(line, orjson.loads(line))
    ]


def discrepancies(log: list[bytes]) -> list[Finding]:
    """What `provider usage reconcile` says of the whole log of a server that has ended."""
    with Books() as books:
        books.read("log", read_lines(log, "log"))
        found = reconcile(books, now_s=0.0, max_request_s=0.0)
    return [finding for finding in found if finding.is_discrepancy]

"""Every usage line that a test's server or ledger writes, to be checked when the test ends."""

import orjson

from provider_core.billing.audit.line_rules import faults

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

"""Who counts money hears of an event once the journal has decided it, and never before."""

import errno
import threading
from pathlib import Path
from typing import Any

from tests.unit.billing.journals import (
    TIMEOUT_S,
    Boot,
    FailingDisk,
    LockingDisk,
    Log,
    boot,
    recovered,
    until,
)


class SlowDisk(LockingDisk):
    """Keeps whoever syncs waiting while its gate is shut."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.is_syncing = threading.Event()

    def sync(self, fd: int) -> None:
        """Wait, then sync."""
        self.is_syncing.set()
        assert self.gate.wait(TIMEOUT_S)
        super().sync(fd)


def listen(server: Boot) -> list[Any]:
    """The events that are told of from now on."""
    heard: list[Any] = []
    server.ledger._on_event = heard.append
    return heard


async def test_nothing_is_charged_before_its_bill_is_on_disk(tmp_path: Path) -> None:
    """A crash during the sync leaves no charge; an answer that waited for it finds one."""
    disk = SlowDisk()
    with boot(tmp_path, Log(), disk=disk) as server:
        heard = listen(server)
        settlement = server.open()
        disk.gate.clear()
        disk.is_syncing.clear()
        record = server.settle(settlement)
        assert disk.is_syncing.wait(TIMEOUT_S)
        assert heard == []
        assert not server.journal.has_decided_all
        disk.gate.set()
        await settlement.until_durable()
        assert heard == [record.event]
        assert server.journal.has_decided_all


def test_events_are_told_in_order_with_those_that_take_back(tmp_path: Path) -> None:
    """An adjustment is an event of its own."""
    with boot(tmp_path, Log()) as server:
        heard = listen(server)
        for is_sent in (True, False):
            settlement = server.open(stream=False)
            server.settle(settlement)
            settlement.conclude(is_sent=is_sent)
        assert server.journal.flush(TIMEOUT_S)
    assert [event["seq"] for event in heard] == [1, 2, 3]
    assert [event["event"] for event in heard] == ["usage.final"] * 2 + ["usage.adjustment"]


def test_a_bill_that_no_disk_takes_is_charged_all_the_same(tmp_path: Path) -> None:
    """Once, although the journal has it later."""
    disk, log = FailingDisk(), Log()
    with boot(tmp_path, log, disk=disk) as server:
        heard = listen(server)
        disk.write_errno = errno.ENOSPC
        server.settle(status="error", finish_reason=None, error_code="backend_error")
        until(lambda: log.events("usage.final"))
        assert [event["seq"] for event in heard] == [1]
        disk.write_errno = None
        server.serve()
    assert [event["seq"] for event in heard] == [1, 2]
    assert recovered(tmp_path) == []

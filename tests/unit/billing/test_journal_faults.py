"""The journal on disks that fill up, fail and lie."""

import errno
import json
import os
from pathlib import Path

import pytest

from provider_core.billing.journal import usage_journal, writer
from provider_core.billing.journal.frames import (
    Damage,
    read_frames,
)
from tests.unit.billing.journals import (
    SETTINGS,
    TIMEOUT_S,
    Boot,
    FailingDisk,
    Log,
    boot,
    recovered,
    until,
)


def finals(folder: Path) -> list[int]:
    """`seq` of every final that the files hold, file by file."""
    records = [
        json.loads(payload)
        for path in sorted(folder.glob("*.jnl"))
        for payload in read_frames(path)
        if isinstance(payload, bytes)
    ]
    return [record["body"]["seq"] for record in records if record["rec"] == "F"]


def damage(folder: Path) -> list[Damage]:
    """What no checksum covers."""
    return [
        payload
        for path in folder.glob("*.jnl")
        for payload in read_frames(path)
        if isinstance(payload, Damage)
    ]


def settle(server: Boot) -> None:
    """One failed generation, whose line waits for no word of a delivery."""
    server.settle(status="error", finish_reason=None, error_code="backend_error")
    assert server.journal.flush(TIMEOUT_S)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_b4_a_full_disk_refuses_work_and_loses_no_bill(tmp_path: Path, code: int) -> None:
    """What runs is billed by the log alone; no frame is torn; the journal resumes by itself."""
    disk, log = FailingDisk(), Log()
    with boot(tmp_path, log, disk=disk) as server:
        settle(server)
        running = server.open()
        server.journal.flush(TIMEOUT_S)
        until(lambda: len(log.events()) == 1)  # lines that no disk takes go first
        disk.write_errno = code
        server.settle(running, status="error", finish_reason=None, error_code="x")
        until(lambda: len(log.events()) == 2)
        problem = server.journal.problem
        assert problem is not None
        assert problem.startswith("the journal cannot be written")
        assert [event["durable"] for event in log.events()] == [True, False]
        assert damage(tmp_path) == []
        disk.write_errno = None
        until(lambda: server.journal.problem is None)
        settle(server)
    assert [event["seq"] for event in log.events()] == [1, 2, 3]
    assert finals(tmp_path) == [1, 2, 3]
    assert recovered(tmp_path) == []


def test_b4_a_disk_that_works_again_at_the_end_has_every_bill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stops does not wait for the next look at its disk, and leaves no doubt."""
    monkeypatch.setattr(writer, "_TICK_S", 3600.0)
    disk, log = FailingDisk(), Log()
    with boot(tmp_path, log, disk=disk) as server:
        disk.write_errno = errno.ENOSPC
        settle(server)
        until(lambda: server.journal.problem is not None)
        disk.write_errno = None
    assert [event["durable"] for event in log.events()] == [False]
    assert finals(tmp_path) == [1]
    assert recovered(tmp_path) == []


def test_b4_little_room_refuses_before_it_is_too_late(tmp_path: Path) -> None:
    """Running generations are still kept on disk while there is some room."""
    disk, log = FailingDisk(), Log()
    disk.free = 10 * 2**20
    roomy = SETTINGS.model_copy(update={"min_free_bytes": 2**20})
    with boot(tmp_path, log, disk=disk, settings=roomy) as server:
        assert server.journal.problem is None
        disk.free = 2**19
        until(lambda: server.journal.problem == "the journal's disk is almost full")
        settle(server)
        until(lambda: [event["durable"] for event in log.events()] == [True])


def test_a_heartbeat_that_cannot_be_made_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can say how large a folder is that does not answer; bills leave all the same."""

    def fail(_: Path) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(usage_journal, "size_bytes", fail)
    log = Log()
    with boot(tmp_path, log) as server:
        server.serve()
        until(lambda: len(log.events()) == 1)
        emitter = server.journal._emitter
    assert emitter is not None
    assert not emitter._thread.is_alive()
    assert not emitter.owes_nothing
    assert log.events("usage.heartbeat") == []


def test_serve_unbilled_serves_on_for_nothing(tmp_path: Path) -> None:
    """While the disk fails bills say what they waive; once it works they are bills again."""
    disk, log = FailingDisk(), Log()
    chosen = SETTINGS.model_copy(update={"on_failure": "serve_unbilled"})
    with boot(tmp_path, log, disk=disk, settings=chosen) as server:
        server.serve()
        disk.write_errno = errno.ENOSPC
        settle(server)
        until(lambda: not server.journal.is_whole)
        assert server.journal.problem is None
        waived = server.settle().event
        disk.write_errno = None
        until(lambda: server.journal.is_whole)
        charged = server.settle().event
    assert (waived["billable"], waived["billing_rule"], waived["cost"]) == (False, "R19", "0")
    assert waived["list_cost"] == charged["cost"]
    assert (charged["billable"], charged["billing_rule"]) == (True, "R1")


def test_stdout_only_serves_on_while_the_disk_fails(tmp_path: Path) -> None:
    """The operator's choice: bills are in the log and say that they are not durable."""
    disk, log = FailingDisk(), Log()
    chosen = SETTINGS.model_copy(update={"on_failure": "stdout_only"})
    with boot(tmp_path, log, disk=disk, settings=chosen) as server:
        disk.write_errno = errno.ENOSPC
        settle(server)
        until(lambda: [event["durable"] for event in log.events()] == [False])
        assert server.journal.problem is None
        assert not server.journal.is_whole


def test_b5_a_failed_sync_is_never_tried_again(tmp_path: Path) -> None:
    """All that the segment may not hold is in the next one before anybody goes on."""
    disk, log = FailingDisk(), Log()
    with boot(tmp_path, log, disk=disk, is_crashing=True) as server:
        settle(server)
        running = server.open()
        disk.sync_errors = [errno.EIO]
        settle(server)
        assert disk.sync_errors == []
        assert server.journal.problem is None
        running.settle(status="cancelled", usage=server.settle().usage)
        server.journal.flush(TIMEOUT_S)
    assert not disk.was_synced_again
    first, _ = sorted(tmp_path.glob("*.jnl"))
    first.unlink()  # the disk may have lost any of it
    assert finals(tmp_path) == [2, 3, 4]
    taken = log.events() + recovered(tmp_path)
    assert {event["seq"] for event in taken} >= {1, 2, 3, 4}


def test_b5_a_disk_that_fails_twice_is_full(tmp_path: Path) -> None:
    """When the new segment fails as well, bills leave by the log and nothing new is begun."""
    disk, log = FailingDisk(), Log()
    with boot(tmp_path, log, disk=disk) as server:
        disk.sync_errors = [errno.EIO, errno.EIO]
        settle(server)
        until(lambda: [event["durable"] for event in log.events()] == [False])
        until(lambda: server.journal.problem is None)
    assert [event["seq"] for event in log.events()] == [1]
    assert finals(tmp_path)[-1] == 1


class BuggyDisk(FailingDisk):
    """Has a bug where one never expects one."""

    point = ""

    def reach(self, point: str) -> None:
        """Raise at one point."""
        if point == self.point:
            raise RuntimeError("a bug of ours")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("point", ["after write", "after stdout"])
async def test_a_thread_that_dies_lets_nobody_wait(tmp_path: Path, point: str) -> None:
    """Answers end, and the replica says that it should get no more traffic."""
    disk = BuggyDisk()
    with boot(tmp_path, Log(), disk=disk) as server:
        disk.point = point
        settlement = server.open()
        server.settle(settlement)
        await settlement.until_durable()
        settlement.conclude(is_sent=True)
        until(lambda: server.journal.problem == "the journal has died")

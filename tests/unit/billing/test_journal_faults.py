"""The journal on disks that fill up, fail, lie, lose power and flip bits."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.billing.journal import frames, usage_journal
from provider_core.billing.journal.frames import (
    Damage,
    encode_frame,
    read_frames,
    split_frames,
)
from tests.unit.billing.journals import (
    SETTINGS,
    TIMEOUT_S,
    Boot,
    FailingDisk,
    LockingDisk,
    Log,
    QuickDisk,
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


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """The only file of a boot that crashed with three bills, one of them in doubt."""
    with boot(tmp_path / "crashed", Log(), is_crashing=True) as server:
        server.serve(2)
        server.settle()
        server.journal.flush(TIMEOUT_S)
    (path,) = (tmp_path / "crashed").glob("*.jnl")
    return path


def read(data: bytes) -> list[bytes | Damage]:
    """What a file of these bytes would hold."""
    return list(split_frames(data.splitlines(keepends=True)))


def test_b8_a_torn_tail_costs_the_torn_frame_only(crashed: Path) -> None:
    """Cut at every byte of the last three frames, a file yields the whole frames before it."""
    data = crashed.read_bytes()
    lines = data.splitlines(keepends=True)
    payloads = [payload for payload in read_frames(crashed) if isinstance(payload, bytes)]
    assert len(payloads) == len(lines)
    whole = len(lines)
    for end in range(len(data), len(data) - sum(map(len, lines[-3:])) - 1, -1):
        whole -= end < sum(map(len, lines[:whole]))
        found = read(data[:end])
        assert found[:whole] == payloads[:whole]
        assert all(isinstance(item, Damage) and item.is_tail for item in found[whole:])
        assert len(found) == whole + (end > sum(map(len, lines[:whole])))


def test_b8_no_flipped_bit_is_believed(crashed: Path) -> None:
    """Whatever bit of a bill flips, the bill is damage and its neighbours are not."""
    lines = crashed.read_bytes().splitlines(keepends=True)
    number, victim = next((n, line) for n, line in enumerate(lines) if b'"rec":"F"' in line)
    before, after = b"".join(lines[:number]), b"".join(lines[number + 1 :])
    for bit in range(len(victim) * 8):
        broken = bytearray(victim)
        broken[bit // 8] ^= 1 << bit % 8
        assert frames.decode_frame(bytes(broken)) is None
        if bit % 101 == 0:
            found = [item for item in read(before + broken + after) if isinstance(item, bytes)]
            # A newline that flips takes the next line along, and no more.
            assert len(found) >= len(lines) - 2


def test_b8_recovery_reports_damage_and_bills_the_rest(crashed: Path) -> None:
    """What a disk changed amid a file is kept aside; the others are billed as ever."""
    lines = crashed.read_bytes().splitlines(keepends=True)
    number, victim = next((n, line) for n, line in enumerate(lines) if b'"rec":"F"' in line)
    lines[number] = victim[:100] + b"#" + victim[101:]
    crashed.write_bytes(b"".join(lines))
    events = recovered(crashed.parent)
    (aside,) = crashed.parent.glob("*.corrupt")
    assert aside.read_bytes() == lines[number]
    seqs = sorted(event["seq"] for event in events)
    assert len(seqs) == len(set(seqs))
    assert {event["status"] for event in events if "status" in event} == {"ok", "interrupted"}


class PowerLossDisk(LockingDisk):
    """Remembers every write and sync, so that a test can lose what was not synced."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[tuple[str, Any, bytes]] = []
        self._paths: dict[int, Path] = {}

    def create(self, path: Path) -> int:
        """Note a new file."""
        fd = super().create(path)
        self._paths[fd] = path
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Note a write."""
        self.history.append(("write", self._paths[fd].name, bytes(data)))
        return super().write(fd, data)

    def sync(self, fd: int) -> None:
        """Note a sync, once it is over."""
        super().sync(fd)
        self.history.append(("sync", self._paths[fd].name, b""))

    def reach(self, point: str) -> None:
        """Note that the bills written so far were acknowledged."""
        if point == "after sync":
            self.history.append(("acknowledge", None, b""))


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Any, bytes]]:
    """Of a journal with several segments."""
    disk = PowerLossDisk()
    small = SETTINGS.model_copy(update={"segment_bytes": 65536})
    folder = tmp_path_factory.mktemp("powered")
    with boot(folder, Log(), disk=disk, settings=small, is_crashing=True) as server:
        for _ in range(40):
            server.serve(1)
            server.settle()
    return disk.history


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_b9_power_loss_takes_no_acknowledged_bill(
    data: st.DataObject,
    history: list[tuple[str, Any, bytes]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever a disk keeps of what was not synced, P1 holds for what was (an ALICE-like model)."""
    moment = data.draw(st.integers(1, len(history)), label="moment")
    synced: dict[str, bytes] = {}
    pending: dict[str, bytes] = {}
    acknowledged: set[int] = set()
    written: set[int] = set()
    for kind, name, content in history[:moment]:
        if kind == "write":
            pending[name] = pending.get(name, b"") + content
            written |= {
                json.loads(line[9:])["body"]["seq"]
                for line in content.splitlines()
                if b'"rec":"F"' in line
            }
        elif kind == "sync":
            synced[name] = synced.get(name, b"") + pending.pop(name, b"")
        else:
            acknowledged = set(written)
    folder = tmp_path_factory.mktemp("lost")
    for name in synced.keys() | pending.keys():
        unsynced = pending.get(name, b"")
        kept = data.draw(st.integers(0, len(unsynced)), label="kept of what was not synced")
        hole = data.draw(st.integers(0, kept), label="zeros before it")
        if name.endswith(".jnl"):
            tail = b"\x00" * hole + unsynced[hole:kept]
            (folder / name).write_bytes(synced.get(name, b"") + tail)
    with boot(folder, Log(), disk=QuickDisk(), settings=SETTINGS):
        pass
    assert acknowledged <= set(finals(folder))


def test_frames_are_lines_that_anybody_can_check() -> None:
    """The form is that of the specification: eight digits, a space, JSON, a newline."""
    assert encode_frame(b'{"rec":"X"}') == b'414bf344 {"rec":"X"}\n'

"""Journals on disks that lose power and flip bits, and the frames that tell."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_core.billing import ProcessFacts, make_ulid
from provider_core.billing.journal import frames
from provider_core.billing.journal.frames import (
    Damage,
    encode_frame,
    read_frames,
    split_frames,
)
from provider_core.billing.journal.recovery import Recovery
from tests.unit.billing.journals import (
    SETTINGS,
    TIMEOUT_S,
    LockingDisk,
    Log,
    QuickDisk,
    boot,
    recovered,
)
from tests.unit.billing.test_journal_faults import finals


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """The only file of a boot that crashed with three bills, one of them in doubt."""
    with boot(tmp_path / "crashed", Log(), is_crashing=True) as server:
        server.serve(2)
        server.settle()
        server.journal.flush(TIMEOUT_S)
    (path,) = (tmp_path / "crashed").glob("*.jnl")
    return path


STRIDE = 3  # bytes between two cuts that a recovery is tried with


def admitted(data: bytes) -> list[dict[str, Any]]:
    """The admissions that a file of these bytes notes."""
    records = [json.loads(item) for item in read(data) if isinstance(item, bytes)]
    return [record for record in records if record["rec"] == "O"]


def recovery(folder: Path) -> Recovery:
    """What a further start does."""
    process = ProcessFacts(boot_id=make_ulid(), service_version="0.1.0", instance_id="host-1")
    return Recovery(folder, process, disk=QuickDisk(), bill_unknown_delivery=False)


def read(data: bytes) -> list[bytes | Damage]:
    """What a file of these bytes would hold."""
    return list(split_frames(data.splitlines(keepends=True), frames.decode_frame))


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


def test_b8_recovery_takes_a_tail_torn_at_any_byte(crashed: Path, tmp_path: Path) -> None:
    """It never fails and invents no bill; what it writes itself is whole, whatever is before it."""
    data = crashed.read_bytes()
    tail = sum(map(len, data.splitlines(keepends=True)[-3:]))
    known = {event["generation_id"] for event in admitted(data)}
    for number, end in enumerate(range(len(data) - tail, len(data) + 1, STRIDE)):
        folder = tmp_path / f"cut-{number}"
        folder.mkdir()
        (folder / crashed.name).write_bytes(data[:end])
        owed = recovery(folder).run()
        assert len(owed) == 1
        found = [item for item in read_frames(owed[0].paths[-1]) if isinstance(item, bytes)]
        bodies = [record["body"] for record in map(json.loads, found) if record["rec"] == "F"]
        seqs = [body["seq"] for body in bodies]
        assert seqs == sorted(set(seqs))
        assert {body["generation_id"] for body in bodies} <= known
        owed[0].finish()
        assert recovery(folder).run() == []


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

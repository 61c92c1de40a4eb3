"""When a journal deletes what it needs no more: by the hour, and at once where room is short."""

import os
from pathlib import Path

import pytest

from provider_core.billing.journal import writer
from tests.unit.billing.journals import SETTINGS, LockingDisk, Log, boot, until

ROOMY = SETTINGS.model_copy(update={"min_free_bytes": 2**20})


class SmallDisk(LockingDisk):
    """Has room once a file is gone."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def free_bytes(self, directory: Path) -> int:
        """As said."""
        return 0 if self.file.exists() else 2**30


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """The file of a boot that ended well."""
    with boot(tmp_path, Log()) as server:
        server.serve()
    (path,) = tmp_path.glob("*.jnl")
    return path


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals that look at their disk all the time."""
    monkeypatch.setattr(writer, "_TICK_S", 0.01)
    monkeypatch.setattr(writer, "_ROOM_AFTER_S", 0.0)


@pytest.mark.usefixtures("hasty")
def test_a_disk_that_is_almost_full_is_made_room_on(closed: Path) -> None:
    """Requests are taken again without anybody's doing."""
    with boot(closed.parent, Log(), disk=SmallDisk(closed), settings=ROOMY) as server:
        until(lambda: server.journal.problem is None)
        assert not closed.exists()


@pytest.mark.usefixtures("hasty")
def test_what_is_old_goes_although_no_segment_is_full(closed: Path) -> None:
    """What is not old stays."""
    with boot(closed.parent, Log()) as server:
        server.serve()
    (young,) = set(closed.parent.glob("*.jnl")) - {closed}
    os.utime(closed, (0, 0))
    with boot(closed.parent, Log()):
        until(lambda: not closed.exists())
        assert young.exists()


def test_others_read_first_what_earlier_boots_have_left(closed: Path) -> None:
    """Charges that only the journal has must be found by a start, however little room there is."""
    with boot(closed.parent, Log(), disk=SmallDisk(closed), settings=ROOMY) as server:
        server.journal._writer._look_at_disk()
        assert server.journal.problem == "the journal's disk is almost full"
        assert closed.exists()
        server.journal._writer._room_from_s = 0.0
        until(lambda: not closed.exists())


@pytest.mark.usefixtures("hasty")
def test_room_is_looked_for_once_an_hour(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with every look at the disk."""
    with boot(closed.parent, Log()) as server:
        until(lambda: server.journal._writer._room_due_s > 0)
        calls: list[int] = []
        monkeypatch.setattr(server.journal._writer, "_make_room", lambda: calls.append(1))
        until(lambda: server.journal._writer._room_due_s > server.journal._writer._looked_s)
        looked_s = server.journal._writer._looked_s
        until(lambda: server.journal._writer._looked_s > looked_s + 0.05)
        assert len(calls) <= 1
        server.journal._writer._room_due_s = 0.0
        until(lambda: calls)

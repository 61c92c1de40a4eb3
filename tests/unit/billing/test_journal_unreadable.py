"""Frames whose checksum is right and whose content nobody should have written."""

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from provider_core.billing.audit.sources import read_source
from provider_core.billing.journal import records
from provider_core.billing.journal.frames import Damage, encode_frame, read_frames
from provider_core.billing.journal.unread import unread_events
from tests.unit.billing.journals import TIMEOUT_S, LockingDisk, Log, boot, recovered

NO_RECORDS = [b'{"rec":', b"[]", b'{"seq":1}', b"\xff", b'{"rec":"F","body":NaN}']


@pytest.fixture
def journal_file(tmp_path: Path) -> Path:
    """The only file of a boot that crashed with a bill and an open generation."""
    with boot(tmp_path, Log(), is_crashing=True) as server:
        server.serve()
        server.open(app_title="Caf?")
        server.journal.flush(TIMEOUT_S)
    (path,) = tmp_path.glob("*.jnl")
    return path


def insert(path: Path, payload: bytes) -> None:
    """Put a frame behind the first one."""
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, encode_frame(payload), *others]))


def with_lone_surrogates(path: Path) -> None:
    """Make the titles of a file what one with a Latin-1 byte became once."""
    frames = []
    for payload in read_frames(path):
        assert isinstance(payload, bytes)
        frames.append(encode_frame(payload.replace(b"Caf?", rb"Caf\udce9")))
    path.write_bytes(b"".join(frames))


def test_a_lone_surrogate_of_an_earlier_version_is_read(journal_file: Path) -> None:
    """Its generation is settled, and nothing that is written of it has the surrogate."""
    with_lone_surrogates(journal_file)
    events = recovered(journal_file.parent)  # the bill again, unless the log's note was kept
    assert (events[-1]["status"], events[-1]["app_title"]) == ("interrupted", "Caf?")
    opens = [item for item in read_source(journal_file) if item.kind == "open"]
    assert [item.fields["app_title"] for item in opens][-1] == "Caf?"


@pytest.mark.parametrize("payload", NO_RECORDS)
def test_what_is_no_record_is_damage_to_every_reader(journal_file: Path, payload: bytes) -> None:
    """It is kept aside and said, and hides nothing beside it."""
    folder = journal_file.parent
    num_events = len([item for item in read_source(folder) if item.kind == "event"])
    insert(journal_file, payload)

    kinds = [item.kind for item in read_source(folder)]
    assert (kinds.count("event"), kinds.count("unreadable")) == (num_events, 1)
    found = list(records.read_records(journal_file))
    assert [item.data for item in found if isinstance(item, Damage)] == [encode_frame(payload)]
    batches = unread_events(folder, {}, but_boot="")
    assert sum(len(events) for events, _ in batches) == num_events
    with capture_logs() as logs:
        assert recovered(folder)[-1]["status"] == "interrupted"
    assert [entry["event"] for entry in logs].count("journal.corrupt") == 1
    assert [path.read_bytes() for path in folder.glob("*.corrupt")] == [encode_frame(payload)]


@pytest.mark.parametrize("payload", NO_RECORDS)
def test_what_is_no_record_does_not_end_the_emitter(tmp_path: Path, payload: bytes) -> None:
    """The lines behind it reach the log."""
    log = Log()
    with capture_logs() as logs, boot(tmp_path, log, disk=LockingDisk()) as server:
        server.journal._writer.note(payload)
        server.serve()
    assert [event["status"] for event in log.events()] == ["ok"]
    assert [entry["event"] for entry in logs].count("journal.corrupt") == 1
    assert json.loads(log.lines[-1])["closing"] is True

"""What carries bills from the journal's files to the log, whatever the files hold."""

import os
from pathlib import Path

import pytest

from provider_core.billing.journal import emitter
from provider_core.types import Principal
from tests.unit.billing.journals import SETTINGS, Log, QuickDisk, boot, recovered, until


@pytest.fixture(autouse=True)
def _retries_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emitter, "_RETRY_S", 0.01)


def journal_file(folder: Path) -> Path:
    """The only one."""
    (path,) = folder.glob("*.jnl")
    return path


@pytest.mark.parametrize("num_bytes", [100, 70_000, 150_000])
def test_a_record_of_any_length_is_read_and_what_follows_it(tmp_path: Path, num_bytes: int) -> None:
    """Longer than what is read at a time, too: the log goes on, and the last totals add up."""
    log = Log()
    with boot(tmp_path, log, disk=QuickDisk()) as server:
        long = server.open(principal=Principal(api_key_id="key_1", account_id="a" * num_bytes))
        server.settle(long, status="error", finish_reason=None)
        served = server.serve(2)
        until(lambda: len(log.events()) == 3)
    assert [event["generation_id"] for event in log.events()] == [long.generation_id, *served]
    (beat,) = log.events("usage.heartbeat")
    assert (beat["finals"], beat["journal_unemitted"]) == (3, 0)
    assert recovered(tmp_path) == []


def test_what_a_client_says_of_itself_is_cut_before_it_is_noted(tmp_path: Path) -> None:
    """An admission is as bounded as a bill, and says after a crash what the bill would have."""
    said = dict.fromkeys(
        ("user_id", "app_title", "app_referer", "session_id"), "\u044f\udce9" * 4000
    )
    with boot(tmp_path, Log(), disk=QuickDisk(), is_crashing=True) as server:
        billed = server.settle(server.open(**said)).event
        server.open(**said)
    assert max(map(len, journal_file(tmp_path).read_bytes().splitlines())) < 4096
    (interrupted,) = [
        event for event in recovered(tmp_path) if event.get("status") == "interrupted"
    ]
    assert {name: interrupted[name] for name in said} == {name: billed[name] for name in said}
    assert [len(str(billed[name]).encode()) for name in said] == [127, 127, 255, 127]


def test_a_frame_whose_newline_is_lost_is_left_out(tmp_path: Path) -> None:
    """A disk's fault at the end of what may be read costs that line and no other."""
    log = Log(takes=False)
    with boot(tmp_path, log, disk=QuickDisk()) as server:
        first = server.serve()
        until(lambda: server.journal.figures()["log_blocked_seconds"])
        server.serve()
        with journal_file(tmp_path).open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"?")
        log.takes = True
        until(lambda: not server.journal.figures()["log_blocked_seconds"])
        third = server.serve()
        until(lambda: len(log.events()) == 2)
    assert [event["generation_id"] for event in log.events()] == first + third


def test_a_file_that_was_cut_is_said_and_not_read_in_a_circle(tmp_path: Path) -> None:
    """The log gets nothing, so no work may begin once the grace is over."""
    log = Log(takes=False)
    hasty = SETTINGS.model_copy(update={"sink_grace_s": 1e-9})
    with boot(tmp_path, log, disk=QuickDisk(), settings=hasty) as server:
        server.serve()
        until(lambda: server.journal.figures()["log_blocked_seconds"])
        server.serve()
        os.truncate(journal_file(tmp_path), 0)
        log.takes = True
        until(lambda: len(log.events()) == 1)
        until(lambda: server.journal.problem == "the usage log takes no lines")

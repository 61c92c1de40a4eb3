"""What carries bills from the journal's files to the log, whatever the files hold."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from provider_core.billing.journal import emitter
from provider_core.types import Principal
from tests.unit.billing.journals import SETTINGS, Boot, Log, QuickDisk, boot, recovered, until


@pytest.fixture(autouse=True)
def _retries_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emitter, "_RETRY_S", 0.01)


@dataclass
class StuckLog(Log):
    """Takes some lines, and the others only when the server is about to end, if at all.

    Attributes:
        num_lines: How many it takes before it is stuck.
        is_freed_by: The server whose end frees it.
    """

    num_lines: int = 0
    is_freed_by: Boot | None = None

    def write_through(self, line: bytes) -> bool:
        """Take one."""
        server = self.is_freed_by
        is_freed = (
            server is not None
            and server.journal._emitter is not None
            and server.journal._emitter._is_closing.is_set()
        )
        self.takes = is_freed or len(self.lines) < self.num_lines
        return super().write_through(line)


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
    """Said once, however often it is tried; no work may begin once the grace is over."""
    log = Log(takes=False)
    hasty = SETTINGS.model_copy(update={"sink_grace_s": 1e-9})
    with (
        capture_logs() as lines,
        boot(tmp_path, log, disk=QuickDisk(), settings=hasty) as server,
    ):
        server.serve()
        until(lambda: server.journal.figures()["log_blocked_seconds"])
        server.serve()
        os.truncate(journal_file(tmp_path), 0)
        log.takes = True
        until(lambda: len(log.events()) == 1)
        until(lambda: server.journal.problem == "the usage log takes no lines")
        news = server.journal._writer.shared.news
        for _ in range(3):
            news.set()
            until(lambda: not news.is_set())
    assert [line["event"] for line in lines].count("journal.unreadable") == 1


def test_a_log_stuck_amid_what_was_read_gets_each_line_once(tmp_path: Path) -> None:
    """Reading goes on behind the last line that it has taken, and so do the totals."""
    log = StuckLog()
    with boot(tmp_path, log, disk=QuickDisk()) as server:
        log.is_freed_by = server
        served = server.serve()
        until(lambda: server.journal.figures()["log_blocked_seconds"])
        served += server.serve(3)
        log.num_lines = 2
        until(lambda: server.journal.figures()["unemitted_events"] < 4)
    assert [event["generation_id"] for event in log.events()] == served
    (beat,) = log.events("usage.heartbeat")
    assert beat["journal_unemitted"] == 0
    assert recovered(tmp_path) == []


def test_word_of_a_delivery_that_met_a_stuck_log_is_kept(tmp_path: Path) -> None:
    """The bill was read long before; it leaves once the log takes lines again."""
    log = StuckLog()
    with boot(tmp_path, log, disk=QuickDisk()) as server:
        log.is_freed_by = server
        settlement = server.open()
        server.settle(settlement)
        emitter_ = server.journal._emitter
        assert emitter_ is not None
        until(lambda: emitter_._waiting)
        settlement.conclude(is_sent=True)
        until(lambda: emitter_.blocked_s)
    (event,) = log.events()
    assert (event["generation_id"], event["delivery"]) == (settlement.generation_id, "sent")


def test_what_a_stuck_log_has_taken_of_an_earlier_boot_is_not_offered_again(
    tmp_path: Path,
) -> None:
    """A start that ends before it has paid all leaves the rest to the next, and no more."""
    with boot(tmp_path, Log(takes=False), disk=QuickDisk(), is_crashing=True) as server:
        served = server.serve(3)
    log = StuckLog(num_lines=1)
    with boot(tmp_path, log, disk=QuickDisk(), is_crashing=True):
        until(lambda: log.lines)
    events = log.events() + recovered(tmp_path)
    assert [event["generation_id"] for event in events] == served

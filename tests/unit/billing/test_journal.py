"""The journal on a sound disk: what it keeps, what it tells the log, what a later start does."""

import asyncio
import os
import stat
from decimal import Decimal
from pathlib import Path

import pytest

from provider_core.billing import content_sha256
from provider_core.billing.journal.segment import segments_by_boot
from provider_core.billing_settings import JournalSettings
from provider_core.errors import ConfigurationError
from tests.unit.billing.journals import SETTINGS, Log, QuickDisk, boot, recovered, until


def test_a_bill_reaches_the_log_with_word_of_its_delivery(tmp_path: Path) -> None:
    """Durable, sent, offered once, and numbered without a gap."""
    log = Log()
    with boot(tmp_path, log) as server:
        served = server.serve(3)
        until(lambda: len(log.events()) == 3)
    events = log.events()
    assert [event["generation_id"] for event in events] == served
    assert [event["seq"] for event in events] == [1, 2, 3]
    for event in events:
        assert (event["durable"], event["delivery"]) == (True, "sent")
        assert (event["recovered"], event["emit_attempt"]) == (False, 1)
        assert content_sha256(event) == event["content_sha256"]
    assert recovered(tmp_path) == []


def test_a_bill_waits_for_its_answer_and_for_no_other(tmp_path: Path) -> None:
    """A slow client's line comes late, and the others' before it."""
    log = Log()
    with boot(tmp_path, log) as server:
        slow, failed = server.open(), server.open()
        server.settle(slow)
        server.settle(failed, status="error", finish_reason=None, error_code="backend_error")
        quick = server.serve()
        until(lambda: len(log.events()) == 2)
        slow.conclude(is_sent=False)
        slow.conclude(is_sent=True)
        until(lambda: len(log.events()) == 3)
    ids = [event["generation_id"] for event in log.events()]
    assert ids == [failed.generation_id, *quick, slow.generation_id]
    assert [event["delivery"] for event in log.events()] == ["failed", "sent", "failed"]


async def test_waiting_for_a_bill_ends_when_it_is_on_disk(tmp_path: Path) -> None:
    """Many that wait at once are let go, each after its own bill was written."""
    log = Log()

    def written() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.glob("*.jnl"))

    with boot(tmp_path, log) as server:

        async def one() -> bool:
            settlement = server.open()
            await settlement.until_durable()  # nothing is settled yet: nothing to wait for
            server.settle(settlement)
            await settlement.until_durable()
            is_written = f'{settlement.generation_id}:final"'.encode() in written()
            settlement.conclude(is_sent=True)
            return is_written

        assert all(await asyncio.gather(*(one() for _ in range(50))))
    assert len(log.events()) == 50


def test_files_are_ours_alone_and_go_on_in_the_next(tmp_path: Path) -> None:
    """Mode 0600 in a folder of 0700; a full segment is followed by another, and none is lost."""
    folder = tmp_path / "journal"
    log = Log()
    settings = JournalSettings(segment_bytes=65536, min_free_bytes=0)
    with boot(folder, log, disk=QuickDisk(), settings=settings) as server:
        served = server.serve(120)
    ((_, segments),) = segments_by_boot(folder).items()
    assert len(segments) > 2
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in segments.values()} == {0o600}
    assert [event["generation_id"] for event in log.events()] == served


def test_a_whole_answer_that_did_not_leave_is_taken_back(tmp_path: Path) -> None:
    """R5: billed first, then nobody was there; a stream's tokens had left before."""
    log = Log()
    with boot(tmp_path, log) as server:
        whole, streamed = server.open(stream=False), server.open()
        for settlement in (whole, streamed):
            server.settle(settlement)
            settlement.conclude(is_sent=False)
        until(lambda: len(log.events()) == 3)
    finals, adjustments = log.events("usage.final"), log.events("usage.adjustment")
    assert [final["delivery"] for final in finals] == ["failed", "failed"]
    (adjustment,) = adjustments
    assert adjustment["refers_to"] == f"{whole.generation_id}:final"
    assert adjustment["cost_delta"] == "-" + finals[0]["cost"]
    assert (adjustment["reason"], adjustment["billing_rule"]) == ("delivery_failed", "R5")
    assert adjustment["content_sha256"] == content_sha256(adjustment)
    assert sorted(event["seq"] for event in log.events()) == [1, 2, 3]


@pytest.mark.parametrize("bills_unknown", [False, True])
def test_b2_a_whole_answer_that_did_not_leave_is_never_kept(
    tmp_path: Path, *, bills_unknown: bool
) -> None:
    """R5, wherever between the bill and the end a crash comes, once anything is known of it."""
    log = Log(takes=False)
    with boot(tmp_path / "whole", log, disk=QuickDisk(), is_crashing=True) as server:
        settlement = server.open(stream=False)
        server.settle(settlement)
        settlement.conclude(is_sent=False)
    (path,) = (tmp_path / "whole").glob("*.jnl")
    frames = path.read_bytes().splitlines(keepends=True)
    bill = next(number for number, frame in enumerate(frames, 1) if b'"rec":"F"' in frame)
    settings = SETTINGS.model_copy(update={"bill_unknown_delivery": bills_unknown})
    costs = []
    for end in range(bill, len(frames) + 1):
        folder = tmp_path / f"cut-{end}"
        folder.mkdir()
        (folder / path.name).write_bytes(b"".join(frames[:end]))
        events = recovered(folder, settings)
        costs.append(sum(Decimal(event.get("cost") or event["cost_delta"]) for event in events))
    in_doubt, *known = costs  # nobody can know before the first word of it
    assert in_doubt == (Decimal("0.0000342") if bills_unknown else 0)
    assert len(known) == 2
    assert set(known) == {0}


def test_the_last_heartbeat_adds_up(tmp_path: Path) -> None:
    """I10: its totals are the sums of the lines, adjustments included."""
    log = Log()
    with boot(tmp_path, log) as server:
        server.serve(4)
        settlement = server.open(stream=False)
        server.settle(settlement)
        settlement.conclude(is_sent=False)
        server.open()
    (beat,) = log.events("usage.heartbeat")
    assert (beat["finals"], beat["adjustments"], beat["billable_finals"]) == (5, 1, 5)
    assert (beat["last_seq"], beat["open_generations"]) == (6, 1)
    assert (beat["sum_prompt_tokens"], beat["sum_completion_tokens"]) == (5 * 812, 5 * 120)
    assert beat["sum_cost"] == "0.0001368"  # of the four whose answers left
    assert (beat["closing"], beat["journal_state"], beat["journal_unemitted"]) == (True, "ok", 0)


def test_a_crash_leaves_what_was_open_as_interrupted(tmp_path: Path) -> None:
    """R8: settled by the next start, for the old boot, with what was known of it, unbilled."""
    log = Log()
    with boot(tmp_path, log, is_crashing=True) as server:
        served = server.serve()
        settlement = server.open(user_id="somebody", app_title="app")
        server.journal.progressed(settlement.generation_id, server.settle().usage)
    events = recovered(tmp_path)
    (interrupted,) = [event for event in events if event.get("status") == "interrupted"]
    (final,) = [event for event in log.events() if event["generation_id"] == served[0]]
    assert interrupted["generation_id"] == settlement.generation_id
    assert interrupted["boot_id"] == final["boot_id"]
    assert interrupted["seq"] == 3
    assert (interrupted["billable"], interrupted["billing_rule"]) == (False, "R8")
    assert (interrupted["cost"], interrupted["list_cost"]) == ("0", "0.0000342")
    assert interrupted["completion_tokens"] == 120
    same = ("prices", "price_version", "model", "backend", "api_key_id", "account_id")
    assert {name: interrupted[name] for name in same} == {name: final[name] for name in same}
    assert (interrupted["user_id"], interrupted["app_title"]) == ("somebody", "app")
    assert interrupted.keys() == final.keys()
    assert (interrupted["recovered"], interrupted["durable"]) == (True, True)
    assert recovered(tmp_path) == []


@pytest.mark.parametrize("is_billed", [False, True])
def test_a_bill_whose_delivery_nobody_knows(tmp_path: Path, is_billed: bool) -> None:  # noqa: FBT001
    """R9: taken back by an adjustment of its own, or kept if the provider says so."""
    log = Log()
    with boot(tmp_path, log, is_crashing=True) as server:
        record = server.settle()
    assert log.events() == []
    settings = SETTINGS.model_copy(update={"bill_unknown_delivery": is_billed})
    final, *adjustments = recovered(tmp_path, settings)
    assert (final["delivery"], final["recovered"], final["cost"]) == ("unknown", True, "0.0000342")
    assert final["content_sha256"] == record.event["content_sha256"]
    assert final["emit_attempt"] == 2
    assert [event["cost_delta"] for event in adjustments] == ([] if is_billed else ["-0.0000342"])
    assert recovered(tmp_path, settings) == []


def test_b7_a_log_that_takes_nothing_costs_disk_and_nothing_else(tmp_path: Path) -> None:
    """Bills go on being kept; the next start writes each once."""
    log = Log(takes=False)
    with boot(tmp_path, log, is_crashing=True) as server:
        served = server.serve(200)
        assert server.journal.is_whole
        emitter = server.journal._emitter
        assert emitter is not None
        assert len(emitter._waiting) <= 200
    assert log.lines == []
    events = recovered(tmp_path)
    assert [event["generation_id"] for event in events] == served
    assert {event["delivery"] for event in events} == {"sent"}


def test_b7_a_log_stuck_for_too_long_refuses_work(tmp_path: Path) -> None:
    """Within the grace nothing is said; beyond it `/readyz` and admissions hear why."""
    log = Log(takes=False)
    patient = SETTINGS.model_copy(update={"sink_grace_s": 3600.0})
    hasty = SETTINGS.model_copy(update={"sink_grace_s": 1e-9})
    with boot(tmp_path / "a", log, settings=patient) as server:
        server.serve()
        assert server.journal.problem is None
        log.takes = True
    log.takes = False
    with boot(tmp_path / "b", log, settings=hasty) as server:
        server.serve()
        until(lambda: server.journal.problem == "the usage log takes no lines")
        log.takes = True
        until(lambda: server.journal.problem is None)


def test_b14_a_boot_is_recovered_once_and_never_while_it_lives(tmp_path: Path) -> None:
    """Whoever starts beside a living process leaves its files alone; one takes a dead one's."""
    log, first, second = Log(), Log(), Log()
    with boot(tmp_path, log, is_crashing=True) as server:
        server.open()
        assert recovered(tmp_path) == []
    first.takes = False
    with boot(tmp_path, first, is_crashing=True):
        with boot(tmp_path, second):
            pass
        assert second.events() == []
    (event,) = recovered(tmp_path)
    assert (event["status"], event["emit_attempt"]) == ("interrupted", 3)


def test_what_is_old_and_written_goes_and_what_is_owed_stays(tmp_path: Path) -> None:
    """Retention deletes closed boots only, by their age, or at once when there is no room."""
    log = Log()
    with boot(tmp_path, log) as server:
        server.serve()
    (closed,) = tmp_path.glob("*.jnl")
    tight = SETTINGS.model_copy(update={"max_bytes": 1})
    blocked = Log(takes=False)
    with boot(tmp_path, blocked, settings=SETTINGS, is_crashing=True) as server:
        server.serve()
        server.journal._make_room()
        assert closed.exists()
        os.utime(closed, (0, 0))
        server.journal._make_room()
        assert not closed.exists()
    (owed,) = tmp_path.glob("*.jnl")
    blocked.takes = False
    with boot(tmp_path, blocked, settings=tight, is_crashing=True) as server:
        server.journal._make_room()
        assert owed.exists()


def test_a_folder_that_cannot_be_written_refuses_the_start(tmp_path: Path) -> None:
    """The message names the folder, the reason, and the setting that waives it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError) as failure, boot(tmp_path / "file", Log()):
        pass
    for part in (str(tmp_path / "file"), "PROVIDER_JOURNAL__ENABLED=false", "exists"):
        assert part in failure.value.message

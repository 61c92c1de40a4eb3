"""Reconciling names exactly the lines that were lost, doubled or altered."""

import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from provider_core.billing.audit.books import Books, Period
from provider_core.billing.audit.reconcile import Finding, reconcile, verify
from provider_core.billing.audit.sources import read_source
from provider_core.billing.audit.totals import totals
from provider_core.billing.journal.frames import encode_frame
from tests.unit.billing.audit.conftest import MAX_REQUEST_S, NUM_SERVED, Line, Written, reworded
from tests.unit.billing.audit.test_exports import LINES
from tests.unit.billing.journals import Log, QuickDisk, boot, recovered

NUM_EVENTS = NUM_SERVED + 4


def final_at(lines: list[Line], index: int) -> tuple[Line, str]:
    """The nth line, a final, and its id."""
    event = orjson.loads(lines[index])
    assert event["event"] == "usage.final"
    return lines[index], event["event_id"]


def ids_in(lines: list[Line]) -> set[str]:
    """Of finals and adjustments."""
    return {event["event_id"] for event in map(orjson.loads, lines) if "event_id" in event}


@pytest.mark.parametrize("with_journal", [True, False])
def test_what_was_written_is_clean(written: Written, *, with_journal: bool) -> None:
    """Journal, log and control totals agree, and so does the log by itself."""
    assert len(written.event_ids) == NUM_EVENTS
    assert written.findings(with_journal=with_journal) == []


def test_a_lost_line_is_named(written: Written) -> None:
    """The journal has it, and nothing else is in doubt."""
    _, event_id = final_at(written.lines, 3)
    written.rewrite(lambda lines: lines[:3] + lines[4:])

    assert written.discrepancies() == [("missing_in_log", event_id)]


def test_a_lost_line_shows_in_the_log_alone(written: Written) -> None:
    """Without a journal, the gap tells boot and number, and the control totals its worth."""
    boot_id = orjson.loads(written.lines[3])["boot_id"]
    written.rewrite(lambda lines: lines[:3] + lines[4:])

    heartbeat, gap = written.findings(with_journal=False)
    assert (gap.kind, gap.subject) == ("seq_gaps", f"{boot_id} seq 4")
    assert heartbeat.kind == "heartbeat_mismatch"
    assert f"finals is {NUM_EVENTS - 2}, not {NUM_EVENTS - 1}" in heartbeat.detail


def test_a_lost_end_shows_in_the_control_totals(written: Written) -> None:
    """The last bill of a boot leaves no gap behind it, but a heartbeat speaks of it."""
    boot_id = orjson.loads(written.lines[0])["boot_id"]
    written.rewrite(lambda lines: [x for x in lines if b'"seq":%d,' % NUM_EVENTS not in x])

    subjects = {one.subject for one in written.findings(with_journal=False)}
    assert f"{boot_id} seq {NUM_EVENTS}" in subjects


def test_a_doubled_line_is_named_and_harmless(written: Written) -> None:
    """At least once is what the log promises: same id, same content."""
    line, event_id = final_at(written.lines, 5)
    written.rewrite(lambda lines: [*lines, line])

    (found,) = written.findings()
    assert found == Finding("duplicates", event_id, "2 times in the log")
    assert written.discrepancies() == []


def test_an_altered_line_is_named(written: Written) -> None:
    """The hash does not fit, and the cost is not what the prices make."""
    line, event_id = final_at(written.lines, 2)
    altered = reworded(line, cost="0.5")
    written.rewrite(lambda lines: [*lines[:2], altered, *lines[3:]])

    assert written.discrepancies() == [("altered", event_id), ("cost_mismatch", event_id)]


@pytest.mark.parametrize(
    "fields",
    [
        {"seq": 9007199254740991},
        {"seq": 2**63},
        {"seq": 3.0},
        {"seq": 1e40},
        {"timestamp": "2035-01-01T00:00:00.000000Z"},
        {"timestamp": "2026-13-40T00:00:00.000000Z"},
        {"received_at": "2026-02-30T00:00:00.000000Z"},
        {"prices": {"prompt": "9" * 40, "completion": "0", "request": "0", "image": "0"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("is_rehashed", [False, True])
def test_b16_whatever_is_altered_the_line_is_named_and_nothing_else(
    written: Written, fields: dict[str, Any], *, is_rehashed: bool
) -> None:
    """Also a number or a date, whatever period is asked for; sums stay the journal's."""
    line, event_id = final_at(written.lines, 2)
    with Books() as books:
        books.read("journal", read_source(written.journal))
        before = totals(books)
    altered = reworded(line, is_rehashed=is_rehashed, **fields)
    written.rewrite(lambda lines: [*lines[:2], altered, *lines[3:]])

    assert {subject for _, subject in written.discrepancies()} == {event_id}
    with Books() as books:
        books.read("log", read_source(written.log))
        if not is_rehashed:
            assert event_id in {one.subject for one in verify(books, Period("2026-11-01"))}
        books.read("journal", read_source(written.journal))
        assert totals(books) == before


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (b"usage.open", {"received_at": "2026-13-01T00:00:00.000000Z"}),
        (b"usage.heartbeat", {"last_seq": 16.0}),
    ],
)
def test_b16_lines_without_a_hash_are_believed_only_if_their_values_can_be(
    written: Written, name: bytes, fields: dict[str, Any]
) -> None:
    """A time that does not exist and a number that is no integer are named, and that is all."""
    lines = [*written.lines, *LINES.read_bytes().splitlines(keepends=True)]
    line = next(line for line in lines if b'"event":"%b"' % name in line)
    written.rewrite(lambda before: [*before, reworded(line, **fields)])

    assert [kind for kind, _ in written.discrepancies()] == ["invalid"]


def test_b24_numbers_that_nobody_has_are_named_as_ranges(written: Written) -> None:
    """However many a forged line or heartbeat leaves out."""
    line, _ = final_at(written.lines, 2)
    name = f"gen-{'2' * 26}"
    forged = reworded(
        reworded(line, generation_id=name, event_id=f"{name}:final", seq=9007199254740991),
        is_rehashed=True,
    )
    boot_id = orjson.loads(line)["boot_id"]
    written.rewrite(lambda lines: [*lines[:4], *lines[6:], forged])

    gaps = [s for k, s in written.discrepancies(with_journal=False) if k == "seq_gaps"]
    beyond = f"{boot_id} seq {NUM_EVENTS + 1} to 9007199254740990"
    assert gaps == [beyond, f"{boot_id} seq 5 to 6"]


def test_b16_a_conflict_is_quarantined(written: Written) -> None:
    """Another content under a known id, its own hash right: the journal's counts, not this one."""
    line, event_id = final_at(written.lines, 2)
    forged = reworded(line, is_rehashed=True, user_id="somebody else")
    with Books() as books:
        books.read("journal", read_source(written.journal))
        before = totals(books)
    written.rewrite(lambda lines: [*lines, forged])

    assert written.discrepancies() == [("conflicts", event_id)]
    with Books() as books:
        books.read("log", read_source(written.log))
        books.read("journal", read_source(written.journal))
        assert totals(books) == before
        found = books.find(event_id)
    assert found is not None
    assert found["user_id"] is None


def test_b15_delivery_three_times_in_any_order_changes_no_sum(written: Written) -> None:
    """The reference consumer: at least once in, exactly once counted."""
    with Books() as books:
        books.read("log", read_source(written.log))
        once = totals(books)
    lines = written.lines * 3
    random.Random(15).shuffle(lines)  # noqa: S311 - an order, repeatable
    written.rewrite(lambda _: lines)

    with Books() as books:
        books.read("log", read_source(written.log))
        assert totals(books) == once
    assert written.discrepancies() == []


@pytest.mark.parametrize("seed", range(4))
def test_b24_lines_that_a_collector_lost_are_named(tmp_path: Path, seed: int) -> None:
    """Lines lost at random, one in a hundred: exactly those, by id."""
    log = Log()
    with boot(tmp_path / "journal", log, disk=QuickDisk()) as started:
        started.serve(300)
    full, part = tmp_path / "full.log", tmp_path / "part.log"
    rng = random.Random(seed)  # noqa: S311 - losses, repeatable
    full.write_bytes(b"".join(log.lines))
    kept = [line for line in log.lines if rng.random() > 0.01]
    part.write_bytes(b"".join(kept))

    found = Written(tmp_path / "journal", full).findings(collector=part)

    lost = [one.subject for one in found if one.is_discrepancy]
    assert sorted(lost) == sorted(ids_in(log.lines) - ids_in(kept))
    assert {one.kind for one in found} <= {"missing_in_collector"}


def test_a_line_that_the_journal_never_had_is_named(written: Written, tmp_path: Path) -> None:
    """Somebody wrote a bill of their own into the log."""
    line, _ = final_at(written.lines, 0)
    forged = reworded(line, is_rehashed=True, event_id=f"gen-{'0' * 26}:final", boot_id="F" * 26)
    forged = reworded(forged, is_rehashed=True, generation_id=f"gen-{'0' * 26}", seq=1)
    written.rewrite(lambda lines: [*lines, forged])

    assert written.discrepancies() == [("missing_in_journal", f"gen-{'0' * 26}:final")]


def test_what_the_journal_has_deleted_is_not_missed(written: Written) -> None:
    """A file of a boot that went by its age takes no bill into doubt."""
    (path,) = written.journal.glob("*.jnl")
    frames = path.read_bytes().splitlines(keepends=True)
    with_more = path.with_name(path.name.replace("000001", "000002"))
    path.rename(with_more)
    head = orjson.loads(frames[0][9:])
    rest = [frame for frame in frames[1:] if b'"seq":1,' not in frame]
    with_more.write_bytes(encode_frame(orjson.dumps({**head, "last_seq": 1})) + b"".join(rest))

    assert written.discrepancies() == []


def test_an_admission_without_a_bill_is_named(tmp_path: Path) -> None:
    """A boot that died is not looked after yet; once it is, all is well."""
    log = Log()
    with boot(tmp_path / "journal", log, disk=QuickDisk(), is_crashing=True) as started:
        open_id = started.open().generation_id
        started.serve()
    path = tmp_path / "usage.log"
    path.write_bytes(b"".join(log.lines))
    written = Written(tmp_path / "journal", path)
    assert written.discrepancies() == [("open_without_final", open_id)]

    lines = [orjson.dumps(event) + b"\n" for event in recovered(tmp_path / "journal")]
    written.rewrite(lambda before: [*before, *lines])
    assert written.discrepancies() == []


def test_an_adjustment_of_nothing_is_named(written: Written) -> None:
    """Its final is in no source."""
    events = map(orjson.loads, written.lines)
    adjustment = next(event for event in events if event["event"] == "usage.adjustment")
    written.rewrite(
        lambda all_: [x for x in all_ if adjustment["refers_to"].encode() not in x[:400]]
    )
    written.rewrite(lambda rest: [*rest, reworded(orjson.dumps(adjustment))])

    kinds = {one.kind: one.subject for one in written.findings(with_journal=False)}
    assert kinds["adjusted_without_final"] == adjustment["event_id"]


def test_access_lines_are_compared_with_bills(written: Written) -> None:
    """Both lines of a request say the same nine things, or somebody changed one."""
    line, _ = final_at(written.lines, 1)
    final = orjson.loads(line)
    names = ("timestamp", "generation_id", "model", "prompt_tokens", "completion_tokens")
    access = {"event": "request.access", **{name: final[name] for name in names}}
    access |= {"cost": final["cost"], "status": final["status"]}
    written.rewrite(lambda lines: [*lines, orjson.dumps(access) + b"\n"])
    assert written.discrepancies() == []

    written.rewrite(lambda lines: [*lines[:-1], orjson.dumps({**access, "cost": "9"}) + b"\n"])
    (found,) = written.findings()
    assert (found.kind, found.subject) == ("usage_vs_access_mismatch", final["generation_id"])
    assert f"cost is 9, billed {final['cost']}" in found.detail

    stranger = {**access, "generation_id": f"gen-{'1' * 26}"}
    written.rewrite(lambda lines: [*lines[:-1], orjson.dumps(stranger) + b"\n"])
    assert written.discrepancies() == [("usage_vs_access_mismatch", f"gen-{'1' * 26}")]


def test_a_torn_line_is_named_by_its_place(written: Written) -> None:
    """Half a bill is no bill; the journal says which one it was."""
    line, event_id = final_at(written.lines, 4)
    written.rewrite(lambda lines: [*lines[:4], line[:200] + b"\n", *lines[5:]])

    assert written.discrepancies() == [
        ("missing_in_log", event_id),
        ("unreadable", f"{written.log}:5"),
    ]


def test_a_period_leaves_out_what_lies_outside(written: Written) -> None:
    """What is wrong on another day is not reported, and the first number seen begins the count."""
    written.rewrite(lambda lines: lines[2:])
    with Books() as books:
        books.read("log", read_source(written.log))
        for period in (Period(since="2035-01-01"), Period(since="2020-01-01")):
            assert reconcile(books, period, now_s=4e9, max_request_s=MAX_REQUEST_S) == []
        everything = reconcile(books, now_s=4e9, max_request_s=MAX_REQUEST_S)
    assert {one.kind for one in everything} == {"seq_gaps", "heartbeat_mismatch"}


def test_verify_finds_flipped_bits_of_a_journal(written: Written) -> None:
    """A frame whose checksum is wrong is damage amid a file, and a cut at its end is none."""
    (path,) = written.journal.glob("*.jnl")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with Books() as books:
        books.read("journal", read_source(path))
        assert {one.kind for one in verify(books)} == {"unreadable"}

    data[len(data) // 2] ^= 1
    path.write_bytes(data[:-3])
    with Books() as books:
        books.read("journal", read_source(path))
        (tail,) = verify(books)
    assert (tail.kind, tail.is_discrepancy) == ("torn_tail", False)

"""The ledger: what can be looked up of each generation, and never counted twice."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from provider_core.billing import ledger as usage_ledger
from provider_core.billing.identifiers import make_ulid
from provider_core.billing.journal import records
from provider_core.billing.journal.frames import encode_frame
from provider_core.billing.journal.segment import segment_path
from provider_core.billing.ledger import UsageLedger, _finished_s
from provider_core.billing.ledger_rows import Owner, Spending, money, split_money
from provider_core.billing.settlement import Ledger
from provider_core.errors import Unavailable
from provider_core.json_lines import encode_line, format_timestamp
from provider_core.types import Principal, Usage, UsageRecord
from tests.unit.billing.conftest import GENERATION_ID, HandClock, Open

MINE = Owner("key_9f31c0")
DAY_S = 86400.0
USED = Usage(prompt_tokens=812, cached_tokens=640, completion_tokens=120, generated_tokens=120)
Settle = Callable[..., UsageRecord]


@pytest.fixture
async def usage(tmp_path: Path, clock: HandClock, ledger: Ledger) -> AsyncIterator[UsageLedger]:
    """A ledger that hears of every settlement."""
    opened = UsageLedger(tmp_path / "ledger.sqlite", retention_days=35, clock=clock)
    opened.start()
    ledger._on_event = opened.record
    yield opened
    opened.close()


@pytest.fixture
def settle(open_settlement: Open, usage: UsageLedger) -> Settle:
    """Settles generations, each with an id of its own unless one is given."""

    def settle_(**facts: Any) -> UsageRecord:
        facts.setdefault("generation_id", f"gen-{make_ulid()}")
        return open_settlement(**facts).settle(status="ok", usage=USED, finish_reason="stop")

    return settle_


async def test_a_generation_can_be_looked_up_at_once(settle: Settle, usage: UsageLedger) -> None:
    """Whoever asks sees everything that was recorded before."""
    record = settle(user_id="u1", app_referer="https://a.example")
    found = await usage.find(record.generation_id, MINE)

    assert found is not None
    assert found.cost == record.cost
    assert {name: found.fields[name] for name in ("model", "stream", "user_id", "app_referer")} == {
        "model": "acme/llama-3.1-8b",
        "stream": 1,
        "user_id": "u1",
        "app_referer": "https://a.example",
    }
    assert [found.fields[f"{kind}_tokens"] for kind in ("prompt", "cached", "completion")] == [
        812,
        640,
        120,
    ]


@pytest.mark.parametrize(
    ("owner", "is_found"),
    [
        (Owner("key_9f31c0"), True),
        (Owner("key_9f31c0", "acc_1"), True),
        (Owner("key_other", "acc_1"), True),
        (Owner("key_other"), False),
        (Owner("key_other", "acc_2"), False),
    ],
)
async def test_only_its_key_or_account_finds_it(
    settle: Settle, usage: UsageLedger, owner: Owner, *, is_found: bool
) -> None:
    """Somebody else's generation is one that does not exist."""
    record = settle(principal=Principal(api_key_id="key_9f31c0", account_id="acc_1"))

    assert (await usage.find(record.generation_id, owner) is not None) is is_found


async def test_without_an_account_only_the_key_finds_it(settle: Settle, usage: UsageLedger) -> None:
    """Two keys without an account are strangers."""
    record = settle()

    assert await usage.find(record.generation_id, Owner("key_other")) is None


async def test_an_event_counts_once(settle: Settle, usage: UsageLedger) -> None:
    """However often it comes, the adjustment of it included."""
    record = settle()
    adjustment = {
        "event": "usage.adjustment",
        "event_id": f"{record.generation_id}:adj:1",
        "generation_id": record.generation_id,
        "cost_delta": "-0.0000002",
        "timestamp": record.event["timestamp"],
    }
    for _ in range(3):
        usage.record(record.event)
        usage.record(adjustment)
    found = await usage.find(record.generation_id, MINE)

    assert found is not None
    assert found.cost == record.cost - Decimal("0.0000002")
    assert (await usage.spending(MINE)).total == found.cost


async def test_an_adjustment_belongs_to_the_day_of_its_bill(
    settle: Settle, usage: UsageLedger, clock: HandClock
) -> None:
    """To its last microsecond, and whenever the adjustment was made."""
    clock.wall_s = 1_764_547_200.0 - 0.0000011  # of Sunday, 30 November 2025
    record = settle(received_wall_s=clock.wall_s)
    clock.advance(60.0)
    usage.record(
        {
            "event": "usage.adjustment",
            "event_id": f"{record.generation_id}:adj:1",
            "generation_id": record.generation_id,
            "cost_delta": f"-{record.event['cost']}",
            "timestamp": format_timestamp(clock.wall_s),
        }
    )
    (day,) = await usage.activity(MINE, "2025-11-01", "2025-12-31")

    assert (day.day, day.cost, day.requests) == ("2025-11-30", Decimal(0), 1)


async def test_spending_is_exact_and_begins_anew(
    settle: Settle, usage: UsageLedger, clock: HandClock
) -> None:
    """By the day, the week from Monday, and the month, all in UTC."""
    clock.wall_s = 1_764_547_200.0  # Monday, 1 December 2025, 00:00
    days_ago = [0.5 * DAY_S, 1.0, 0.0]  # Sunday of November, twice, and the first second
    for back_s in days_ago:
        clock.wall_s -= back_s
        settle(received_wall_s=clock.wall_s)
        clock.wall_s += back_s
    cost = Decimal("0.0000342") * 1
    found = await usage.spending(MINE)

    assert found == Spending(total=cost * 3, day=cost, week=cost, month=cost)


async def test_what_is_forgotten_stays_in_the_sum(
    settle: Settle, usage: UsageLedger, clock: HandClock
) -> None:
    """A month later its numbers are gone, and what it cost is not."""
    old = settle()
    assert await usage.find(old.generation_id, MINE) is not None
    clock.advance(36 * DAY_S)
    new = settle(received_wall_s=clock.wall_s)
    usage.record(old.event)  # too old to be taken in again

    assert await usage.find(old.generation_id, MINE) is None
    assert await usage.find(new.generation_id, MINE) is not None
    assert (await usage.spending(MINE)).total == old.cost + new.cost


async def test_a_clock_that_is_ahead_for_a_while_forgets_nothing(
    settle: Settle, usage: UsageLedger, clock: HandClock
) -> None:
    """What a start reads again would count twice."""
    old = settle()
    clock.wall_s += 40 * DAY_S
    new = settle(received_wall_s=clock.wall_s)
    assert await usage.find(old.generation_id, MINE) is not None
    usage.record(old.event)
    assert (await usage.spending(MINE)).total == old.cost + new.cost


async def test_activity_is_by_day_and_model(
    settle: Settle, usage: UsageLedger, clock: HandClock
) -> None:
    """The newest day first; others' requests are not in it."""
    settle(received_wall_s=clock.wall_s)
    settle(received_wall_s=clock.wall_s)
    settle(principal=Principal(api_key_id="key_other"), received_wall_s=clock.wall_s)
    clock.advance(DAY_S)
    settle(received_wall_s=clock.wall_s)
    newest, older = await usage.activity(MINE, "2025-11-01", "2025-11-21")
    (alone,) = await usage.activity(MINE, "2025-11-20", "2025-11-20")

    assert alone == older
    assert (newest.day, older.day) == ("2025-11-21", "2025-11-20")
    assert (newest.requests, older.requests) == (1, 2)
    assert (older.prompt_tokens, older.completion_tokens) == (1624, 240)
    assert older.cost == 2 * Decimal("0.0000342")


def journal_file(directory: Path, boot_id: str, *events: Any) -> Path:
    """What a boot that has ended left."""
    directory.mkdir(exist_ok=True)
    path = segment_path(directory, boot_id, 1)
    head = records.header(boot_id=boot_id, service_version="1", last_seq=0, recovery=0)
    payloads = [head, *(records.final(encode_line(dict(event))) for event in events)]
    path.write_bytes(b"".join(map(encode_frame, payloads)))
    return path


async def test_a_start_adds_what_the_journals_have(
    settle: Settle, tmp_path: Path, clock: HandClock
) -> None:
    """A crash between journal and ledger loses nothing, and a second start adds nothing."""
    record, other = settle(), settle()
    directory = tmp_path / "journal"
    path = journal_file(directory, make_ulid(), record.event, other.event)
    path.write_bytes(path.read_bytes() + b"torn")
    for _ in range(2):
        again = UsageLedger(
            tmp_path / "other.sqlite",
            retention_days=35,
            journal_dir=directory,
            boot_id="own",
            clock=clock,
        )
        again.start()
        async with asyncio.timeout(10):
            while await again.find(other.generation_id, MINE) is None:  # noqa: ASYNC110 - another thread
                await asyncio.sleep(0)
        assert (await again.spending(MINE)).total == record.cost + other.cost
        again.close()


@pytest.mark.parametrize(
    "damage",
    [
        {"cost": "much"},
        {"timestamp": None},
        {"timestamp": "yesterday"},
        {"completion_tokens": 2**70},
        {"model": "\ud800"},
    ],
)
async def test_an_event_that_cannot_be_read_keeps_no_other_out(
    settle: Settle, tmp_path: Path, clock: HandClock, damage: dict[str, Any]
) -> None:
    """It is left out whole, and the files of this boot will be read again."""
    record, other = settle(), settle()
    own = make_ulid()
    journal_file(tmp_path / "journal", own, record.event)
    path = tmp_path / "other.sqlite"
    fresh = UsageLedger(
        path, retention_days=35, journal_dir=tmp_path / "journal", boot_id=own, clock=clock
    )
    fresh.start()
    with capture_logs() as logs:
        fresh.record({**record.event, **damage})
        fresh.record(other.event)
        assert (await fresh.spending(MINE)).total == other.cost
        assert await fresh.find(record.generation_id, MINE) is None
        fresh.close()
    assert [(line["event"], line["event_id"]) for line in logs] == [
        ("ledger.skipped", record.event["event_id"])
    ]
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT name FROM segments").fetchall() == []
    db.close()


async def test_what_a_busy_file_keeps_out_is_written_later(
    settle: Settle, tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the next event, or some seconds later with the next lookup."""
    monkeypatch.setattr(usage_ledger, "_BUSY_S", 0.0)
    first, second, third = settle(), settle(), settle()
    path = tmp_path / "other.sqlite"
    busy = UsageLedger(path, retention_days=35, clock=clock)
    busy.start()
    assert (await busy.spending(MINE)).total == 0
    other = sqlite3.connect(path, isolation_level=None)

    async def record_while_locked(event: Any) -> Decimal:
        other.execute("BEGIN IMMEDIATE")
        busy.record(event)
        total = (await busy.spending(MINE)).total
        other.execute("COMMIT")
        return total

    with capture_logs() as logs:
        assert await record_while_locked(first.event) == 0
        busy.record(second.event)
        assert (await busy.spending(MINE)).total == 2 * first.cost
        assert await record_while_locked(third.event) == 2 * first.cost
        clock.advance(usage_ledger._RETRY_S)
        assert (await busy.spending(MINE)).total == 3 * first.cost
    assert [line["event"] for line in logs] == ["ledger.failed"] * 2
    other.close()
    busy.close()


@pytest.mark.parametrize("has_all", [True, False])
async def test_a_file_that_was_read_is_not_read_again(
    settle: Settle,
    tmp_path: Path,
    clock: HandClock,
    has_all: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Nor is one of this boot, if all of its events were recorded as they happened."""
    directory = tmp_path / "journal"
    own = make_ulid()
    path = journal_file(directory, own, settle().event)
    first = UsageLedger(
        tmp_path / "other.sqlite",
        retention_days=35,
        journal_dir=directory,
        boot_id=own,
        clock=clock,
    )
    first.start()
    first.close(has_all=has_all)
    with sqlite3.connect(tmp_path / "other.sqlite") as db:
        read = [(path.name, path.stat().st_size)] if has_all else []
        assert db.execute("SELECT name, size FROM segments").fetchall() == read
        assert db.execute("SELECT COUNT(*) FROM generations").fetchall() == [(0,)]
    db.close()


async def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    """Nothing can be looked up until it is moved away."""
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    newer = UsageLedger(path, retention_days=35)
    newer.start()
    with pytest.raises(Unavailable):
        await newer.spending(MINE)
    newer.close()


async def test_a_folder_that_cannot_be_written_is_no_reason_not_to_serve(
    tmp_path: Path, settle: Settle
) -> None:
    """Events are taken, and lookups say that they do not work."""
    (tmp_path / "file").write_bytes(b"")
    broken = UsageLedger(tmp_path / "file" / "ledger.sqlite", retention_days=35)
    broken.start()
    broken.record(settle().event)
    with pytest.raises(Unavailable, match="usage records"):
        await broken.find(GENERATION_ID, MINE)
    broken.close()
    with pytest.raises(Unavailable):
        await broken.find(GENERATION_ID, MINE)


@given(st.lists(st.decimals(-(10**6), 10**6, places=18, allow_nan=False), max_size=20))
def test_sums_of_split_money_are_exact(amounts: list[Decimal]) -> None:
    """Whatever the signs, in eighteen decimals."""
    parts = [split_money(format(amount, "f")) for amount in amounts]
    total = sum((Decimal(amount) for amount in amounts), Decimal(0))

    assert money(sum(nano for nano, _ in parts), sum(atto for _, atto in parts)) == total


def test_timestamps_are_read_as_they_are_written() -> None:
    """UTC, to the microsecond."""
    assert _finished_s({"timestamp": format_timestamp(1_763_678_400.25)}) == 1_763_678_400.25

"""Credits: reserved, charged once, given back, whatever fails."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from provider_core.access import AccessDatabase
from provider_core.access.credit_rows import period_start, spent
from provider_core.access.credits import RESERVED_FOR_S, CreditStore
from provider_core.errors import Conflict, InsufficientCredits, Unavailable
from provider_core.quotas import SpendLimit
from provider_core.types import Principal
from tests.unit.access.test_keys import TestClock

NOON_S = 1_800_014_400.0  # a Friday in January
ACME = Principal(api_key_id="key_a", account_id="acme")


class JumpingClock(TestClock):
    """One whose wall time somebody sets ahead."""

    ahead_s = 0.0

    def time(self) -> float:
        """Unix seconds."""
        return self.now_s + self.ahead_s


@pytest.fixture
def clock() -> TestClock:
    """At noon."""
    return TestClock(NOON_S)


@pytest.fixture
def database(tmp_path: Path) -> AccessDatabase:
    """A file that nobody has written to, and that nobody waits for."""
    return AccessDatabase(tmp_path / "access.sqlite", busy_s=0)


@pytest.fixture
async def store(database: AccessDatabase, clock: TestClock) -> AsyncIterator[CreditStore]:
    """Of that file."""
    store = CreditStore(database, clock)
    yield store
    await store.close()


def limited(usd: str, reset: Any = None) -> Principal:
    """A key with a limit."""
    return Principal(api_key_id="key_l", spend_limit=SpendLimit(Decimal(usd), reset))


def final(name: str, cost: str, day: str = "2027-01-15", **fields: Any) -> dict[str, Any]:
    """A usage event, as far as it matters here."""
    return {
        "event": "usage.final",
        "event_id": f"{name}:final",
        "generation_id": name,
        "timestamp": f"{day}T12:00:00.000000Z",
        "api_key_id": "key_a",
        "account_id": "acme",
        "model": "m",
        "cost": cost,
        **fields,
    }


async def reserve(store: CreditStore, name: str, usd: str, principal: Principal = ACME) -> bool:
    """For a request that may take a minute."""
    return await store.reserve(name, principal, Decimal(usd), deadline_s=60)


async def add(store: CreditStore, usd: str, event_id: str = "credit-1") -> None:
    """Credit the account."""
    await store.add("acme", Decimal(usd), event_id=event_id)


async def balance(store: CreditStore) -> tuple[str, str, str]:
    """Bought, used, reserved."""
    found = await store.balance("acme")
    assert found is not None
    return f"{found.bought:f}", f"{found.used:f}", f"{found.reserved:f}"


async def test_a_request_reserves_is_charged_and_gives_the_rest_back(store: CreditStore) -> None:
    """Reserve, settle, release."""
    await add(store, "1.00")
    assert await reserve(store, "gen-1", "0.60")
    assert await balance(store) == ("1.00", "0", "0.60")
    with pytest.raises(InsufficientCredits, match="credits do not cover"):
        await reserve(store, "gen-2", "0.41")
    store.record(final("gen-1", "0.000000123456789"))
    assert await balance(store) == ("1.00", "0.000000123456789", "0")
    assert await reserve(store, "gen-3", "0.99")


async def test_b21_of_64_requests_for_the_credit_of_one_exactly_one_is_admitted(
    store: CreditStore,
) -> None:
    """However they race."""
    await add(store, "0.5")
    answers = await asyncio.gather(
        *(reserve(store, f"gen-{i}", "0.3") for i in range(64)), return_exceptions=True
    )
    assert [answer for answer in answers if answer is True] == [True]
    assert sum(isinstance(answer, InsufficientCredits) for answer in answers) == 63


async def test_processes_race_for_the_same_credit(tmp_path: Path, clock: TestClock) -> None:
    """Each has a connection of its own."""
    stores = [CreditStore(AccessDatabase(tmp_path / "access.sqlite"), clock) for _ in range(4)]
    await add(stores[0], "1")
    answers = await asyncio.gather(
        *(reserve(stores[i % 4], f"gen-{i}", "0.3") for i in range(32)), return_exceptions=True
    )
    assert [answer for answer in answers if answer is True] == [True] * 3
    for one in stores:
        await one.close()


async def test_an_event_charges_once(store: CreditStore) -> None:
    """However often it comes, and a credit of the same id counts once, too."""
    await add(store, "1")
    await add(store, "1")
    for _ in range(3):
        store.record(final("gen-1", "0.25"))
    assert await balance(store) == ("1", "0.25", "0")


@pytest.mark.parametrize(("refers_to", "left"), [("gen-1:final", "0.5"), ("gone:final", "1")])
async def test_what_is_given_back_after_midnight_belongs_to_its_day(
    store: CreditStore, refers_to: str, left: str
) -> None:
    """The next day's limit is no wider for it; that of an unknown bill makes no day negative."""
    owner = limited("1", "daily")
    adjustment = {
        **final("gen-1", "0", api_key_id="key_l"),
        "event": "usage.adjustment",
        "event_id": "gen-1:adj:1",
        "refers_to": refers_to,
        "cost_delta": "-0.9",
    }
    await add(store, "5")  # a file that is there is charged
    store.record(final("gen-1", "0.9", day="2027-01-14", api_key_id="key_l"))
    store.record(final("gen-2", "0.5", api_key_id="key_l"))
    store.record(adjustment)
    with pytest.raises(InsufficientCredits):
        await reserve(store, "gen-3", f"{Decimal(left):.1f}00001", owner)
    assert await reserve(store, "gen-4", left, owner)


@pytest.mark.parametrize(("account", "usd"), [("acme", "2"), ("other", "1"), ("acme", "-1")])
async def test_an_id_of_another_payment_is_refused(
    store: CreditStore, account: str, usd: str
) -> None:
    """It would be lost in silence; the same one, however written, is not credited again."""
    await add(store, "1")
    with pytest.raises(Conflict, match="credit-1 is a payment of another") as refused:
        await store.add(account, Decimal(usd), event_id="credit-1")
    assert (refused.value.status, refused.value.code) == (409, "payment_conflict")
    await add(store, "1.00")
    assert await balance(store) == ("1", "0", "0")


async def test_an_adjustment_gives_back(store: CreditStore) -> None:
    """With its sign, once."""
    await add(store, "1")
    store.record(final("gen-1", "0.25"))
    adjustment = {
        **final("gen-1", "0"),
        "event": "usage.adjustment",
        "event_id": "gen-1:adj:1",
        "cost_delta": "-0.25",
    }
    store.record(adjustment)
    store.record(adjustment)
    assert await balance(store) == ("1", "0.00", "0")
    kinds = [(movement.kind, str(movement.usd)) for movement in await store.movements("acme")]
    assert sorted(kinds) == [("adjustment", "0.25"), ("charge", "-0.25"), ("credit", "1")]


@pytest.mark.parametrize("cost", ["0", "0.10", "0.30"])
async def test_a_bill_that_is_known_with_another_cost_is_put_right(
    store: CreditStore, cost: str
) -> None:
    """On the day of the charge, once: a recovery may say `interrupted` of what was charged."""
    owner = limited("1", "daily")
    await add(store, "1")
    store.record(final("gen-1", "0.25", api_key_id="key_l"))
    for _ in range(2):
        store.record(final("gen-1", cost, day="2027-01-16", api_key_id="key_l"))
        found = await store.balance("acme")
        assert found is not None
        assert found.used == Decimal(cost)
    left = Decimal(1) - Decimal(cost)
    with pytest.raises(InsufficientCredits):
        await reserve(store, "gen-2", f"{left + Decimal('0.01')}", owner)
    assert await reserve(store, "gen-3", f"{left}", owner)


async def test_a_free_event_gives_the_reservation_back(store: CreditStore) -> None:
    """A cancelled request costs nothing."""
    await add(store, "1")
    await reserve(store, "gen-1", "1")
    store.record(final("gen-1", "0"))
    assert await balance(store) == ("1", "0", "0")


async def test_an_account_without_credits_pays_later(store: CreditStore) -> None:
    """Nothing is reserved for it, and none is asked of a key without account and limit."""
    assert not await reserve(store, "gen-1", "1000")
    assert not await reserve(store, "gen-2", "1000", Principal(api_key_id="key_fixed"))
    assert await store.balance("acme") is None


async def test_a_negative_balance_refuses_free_requests_too(store: CreditStore) -> None:
    """As OpenRouter does."""
    await add(store, "0.1")
    store.record(final("gen-1", "0.2"))
    with pytest.raises(InsufficientCredits):
        await reserve(store, "gen-2", "0")


@pytest.mark.parametrize(
    ("reset", "days", "expected"),
    [
        (None, ["2026-01-01", "2027-01-15"], "2"),
        ("daily", ["2027-01-14", "2027-01-15"], "1"),
        ("weekly", ["2027-01-10", "2027-01-11", "2027-01-15"], "2"),
        ("monthly", ["2026-12-31", "2027-01-01", "2027-01-15"], "2"),
    ],
)
async def test_limits_begin_anew_at_midnight_of_their_day(
    store: CreditStore,
    database: AccessDatabase,
    clock: TestClock,
    reset: Any,
    days: list[str],
    expected: str,
) -> None:
    """In UTC, weeks on Monday."""
    assert await reserve(store, "gen-0", "1", limited("3", reset))
    store.release("gen-0")
    for index, day in enumerate(days):
        clock.now_s = NOON_S if day.startswith("2027") else NOON_S - 40 * 86400
        if day == "2026-01-01":
            clock.now_s -= 330 * 86400
        store.record(final(f"gen-{index}-d", "1", day, api_key_id="key_l", account_id=None))
        await store.balance("acme")  # charged by now
    clock.now_s = NOON_S
    since = period_start(reset, NOON_S)
    assert str(await database.read(lambda db: spent(db, "key_l", since))) == expected
    left = Decimal(3) - Decimal(expected)
    with pytest.raises(InsufficientCredits, match="limit of 3 USD"):
        await reserve(store, "gen-x", str(left + Decimal("0.000001")), limited("3", reset))
    assert await reserve(store, "gen-y", str(left), limited("3", reset))


async def test_a_limit_of_nothing_refuses_everything(store: CreditStore) -> None:
    """A14, also what is free."""
    with pytest.raises(InsufficientCredits):
        await reserve(store, "gen-1", "0", limited("0"))


async def test_four_fifths_are_said_once(store: CreditStore) -> None:
    """To the operator, before anybody is refused."""
    await add(store, "1")
    store.record(final("gen-1", "0.8"))
    with capture_logs() as logs:
        for index in range(3):
            await reserve(store, f"gen-{index}", "0.01")
    assert [(line["event"], line["owner"]) for line in logs] == [("credits.low", "acme")]


async def test_reservations_of_a_process_that_is_gone_expire(
    store: CreditStore, clock: TestClock
) -> None:
    """Ten minutes after the request would have been over."""
    await add(store, "1")
    await reserve(store, "gen-1", "1")
    clock.now_s += 60 + RESERVED_FOR_S
    with pytest.raises(InsufficientCredits):
        await reserve(store, "gen-2", "1")
    clock.now_s += 1
    assert await reserve(store, "gen-2", "1")


async def test_a_cancelled_request_leaves_no_reservation(store: CreditStore) -> None:
    """The job runs nevertheless, and is undone."""
    await add(store, "1")
    waiting = asyncio.ensure_future(reserve(store, "gen-1", "1"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await balance(store) == ("1", "0", "0")


async def test_b22_a_charge_waits_for_a_locked_file_and_is_applied_once(
    store: CreditStore, database: AccessDatabase
) -> None:
    """Meanwhile nothing that must be paid for is admitted."""
    await add(store, "1")
    await reserve(store, "gen-1", "0.5")
    locker = sqlite3.connect(database.path, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    store.record(final("gen-1", "0.4"))
    with pytest.raises(Unavailable, match="cannot be used"):
        await reserve(store, "gen-2", "0.1")
    assert await balance(store) == ("1", "0", "0.5")
    locker.execute("ROLLBACK")
    locker.close()
    assert await reserve(store, "gen-2", "0.1")
    assert await balance(store) == ("1", "0.4", "0.1")
    store.record(final("gen-1", "0.4"))
    assert await balance(store) == ("1", "0.4", "0.1")


async def test_a_start_charges_what_journals_have_beyond_the_file(
    store: CreditStore, tmp_path: Path, clock: TestClock
) -> None:
    """What is there already is charged once; files that were read are not read again."""
    await add(store, "1")
    store.record(final("gen-1", "0.1"))
    await store.close()
    asked: list[Mapping[str, int]] = []

    def unread(known: Mapping[str, int]) -> Iterator[tuple[list[Any], dict[str, int]]]:
        asked.append(dict(known))
        yield [final("gen-1", "0.1"), final("gen-2", "0.2")], {}
        yield [], {"a.jnl": 7}

    for _ in range(2):
        again = CreditStore(AccessDatabase(tmp_path / "access.sqlite"), clock)
        again.start(unread)
        for _ in range(4):  # jobs queue up behind each other
            await balance(again)
        assert await balance(again) == ("1", "0.3", "0")
        await again.close()
    assert asked == [{}, {"a.jnl": 7}]


async def test_a_clock_that_is_ahead_for_a_while_forgets_no_charge(
    database: AccessDatabase,
) -> None:
    """A start that reads the journal again would charge it twice."""
    clock = JumpingClock(NOON_S)
    store = CreditStore(database, clock)
    await add(store, "1")
    store.record(final("gen-1", "0.1"))
    clock.ahead_s = 40 * 86400.0
    store.record(final("gen-2", "0.1", "2027-02-24"))
    assert await balance(store) == ("1", "0.2", "0")
    await store.close()

    again = CreditStore(AccessDatabase(database.path), JumpingClock(NOON_S))
    for _ in range(2):
        again.record(final("gen-1", "0.1"))
        again.record(final("gen-2", "0.1", "2027-02-24"))
    assert await balance(again) == ("1", "0.2", "0")
    await again.close()


async def test_charges_that_no_journal_can_bring_again_are_forgotten(
    store: CreditStore, clock: TestClock
) -> None:
    """Their sums stay, and so do credits."""
    await add(store, "1")
    store.record(final("gen-1", "0.1"))
    await store.balance("acme")
    clock.now_s += 36 * 86400
    store.record(final("gen-2", "0.1", "2027-02-20"))
    assert [m.event_id for m in await store.movements("acme")] == ["gen-2:final", "credit-1"]
    store.record(final("gen-1", "0.1"))
    assert await balance(store) == ("1", "0.2", "0")

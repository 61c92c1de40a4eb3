"""API keys: minting, storing, checking, changing, replacing."""

import json
import secrets
import sqlite3
import stat
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from provider_core.access import AccessDatabase, ApiKey, KeyStore, load_or_mint
from provider_core.access.key_format import MAX_KEY_BYTES, digest_of
from provider_core.access.keys import CACHE_S
from provider_core.access.pepper import Pepper
from provider_core.errors import AuthenticationFailed, ConfigurationError, Unavailable

PEPPER = bytes(range(32))
FIXED = "a fixed key with späces"


@dataclass(slots=True)
class TestClock:
    """Time that stands still until a test moves it."""

    __test__ = False
    now_s: float = 1_800_000_000.0

    def time(self) -> float:
        """Unix seconds."""
        return self.now_s

    def monotonic(self) -> float:
        """The same."""
        return self.now_s


@pytest.fixture
def clock() -> TestClock:
    """For one test."""
    return TestClock()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[AccessDatabase]:
    """A file that nobody has written to."""
    database = AccessDatabase(tmp_path / "data" / "access.sqlite", busy_s=0)
    yield database
    database.close()


@pytest.fixture
def store(tmp_path: Path, database: AccessDatabase, clock: TestClock) -> KeyStore:
    """Of that file."""
    return KeyStore(database, Pepper(tmp_path / "data" / "pepper"), clock)


def mode(path: Path) -> int:
    """Permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


async def test_first_start_mints_a_key_that_works(tmp_path: Path) -> None:
    """With no key anywhere one is minted, returned once, and accepted."""
    store, key = load_or_mint(tmp_path / "data", None)
    assert key is not None
    principal = await store.authenticate(key)
    assert principal is not None
    assert principal.api_key_id == "key_" + key.split("-")[2]
    assert (principal.label, principal.scope, principal.models) == ("first", "inference", None)


async def test_second_start_knows_the_key_and_mints_none(tmp_path: Path) -> None:
    """The stored hash outlives the process."""
    first, key = load_or_mint(tmp_path, None)
    second, minted = load_or_mint(tmp_path, None)
    assert minted is None
    assert key is not None
    assert await second.authenticate(key) == await first.authenticate(key) is not None


def test_the_folder_holds_no_key(tmp_path: Path) -> None:
    """No file contains the secret, and only the owner can read them."""
    _, key = load_or_mint(tmp_path / "data", None)
    assert key is not None
    secret = key.rsplit("-", 1)[1].encode()
    files = sorted((tmp_path / "data").iterdir())
    assert {"access.sqlite", "pepper"} <= {file.name for file in files}
    assert not any(secret in file.read_bytes() for file in files)
    assert {mode(file) for file in files} == {0o600}
    assert mode(tmp_path / "data") == 0o700


async def test_fixed_key_writes_nothing(tmp_path: Path) -> None:
    """A fixed key serves from a read-only file system."""
    store, minted = load_or_mint(tmp_path / "data", FIXED)
    assert minted is None
    assert await store.authenticate("another key") is None
    principal = await store.authenticate(FIXED)
    assert principal is not None
    assert principal.api_key_id == "key_fixed"
    assert not (tmp_path / "data").exists()


async def test_fixed_key_stands_beside_stored_ones(tmp_path: Path) -> None:
    """Setting a fixed key does not lock the minted one out."""
    _, key = load_or_mint(tmp_path, None)
    assert key is not None
    store, _ = load_or_mint(tmp_path, FIXED)
    assert await store.authenticate(FIXED) is not None
    assert await store.authenticate(key) is not None


async def test_a_trailing_newline_of_a_fixed_key_is_no_part_of_it(tmp_path: Path) -> None:
    """Secrets mounted from files end in a newline, which no header can carry."""
    store, _ = load_or_mint(tmp_path, FIXED + "\n")
    assert await store.authenticate(FIXED) is not None


def test_an_over_long_fixed_key_stops_start_up(tmp_path: Path) -> None:
    """It could never be presented, so it is refused at once."""
    load_or_mint(tmp_path, "k" * MAX_KEY_BYTES)
    with pytest.raises(ConfigurationError, match="512 bytes"):
        load_or_mint(tmp_path, "k" * (MAX_KEY_BYTES + 1))


async def test_a_key_made_by_another_process_works_at_once(tmp_path: Path) -> None:
    """The command line makes keys while a server runs, even one that had no file."""
    server, _ = load_or_mint(tmp_path / "data", FIXED)
    command_line, _ = load_or_mint(tmp_path / "data", FIXED)
    key, secret = await command_line.create(label="new", account_id="acme")
    principal = await server.authenticate(secret)
    assert principal == key.principal


async def test_facts_of_a_key_reach_its_principal(store: KeyStore) -> None:
    """What it may do is stored and read exactly."""
    facts = ApiKey(
        id="",
        label="limited",
        account_id="acme",
        scope="management",
        models="one,two",
        spend_limit="12.50",
        spend_reset="weekly",
        requests_per_minute=1,
        requests_per_day=2,
        tokens_per_minute=3,
        concurrent_requests=4,
        expires_at="2099-01-01T00:00:00Z",
    )
    names = [name for name in facts.__slots__ if name not in {"id", "created_at"}]
    key, secret = await store.create(**{name: getattr(facts, name) for name in names})
    assert await store.authenticate(secret) == key.principal
    assert await store.find(key.hash) == await store.find(key.id) == key
    assert key.principal.models == ("one", "two")
    assert str(key.principal.spend_limit) == "SpendLimit(usd=Decimal('12.50'), reset='weekly')"


async def test_keys_are_listed_by_account(store: KeyStore) -> None:
    """A management key with an account sees no others."""
    mine, _ = await store.create(account_id="acme")
    other, _ = await store.create(account_id="other")
    assert await store.select("acme") == [mine]
    assert {key.id for key in await store.select()} == {mine.id, other.id}
    assert await store.find(other.hash, "acme") is None


async def test_a_revoked_key_is_refused_at_once_here(store: KeyStore) -> None:
    """With a code of its own (A4)."""
    key, secret = await store.create()
    assert await store.authenticate(secret) is not None
    await store.revoke(key)
    with pytest.raises(AuthenticationFailed, match="revoked") as failure:
        await store.authenticate(secret)
    assert failure.value.code == "expired_api_key"


async def test_a_key_revoked_elsewhere_is_refused_in_time(
    store: KeyStore, tmp_path: Path, clock: TestClock
) -> None:
    """At the latest when what is remembered has to be looked up again: within 30 s."""
    key, secret = await store.create()
    await store.authenticate(secret)
    elsewhere, _ = load_or_mint(tmp_path / "data", None)
    await elsewhere.revoke(key)
    clock.now_s += CACHE_S
    assert CACHE_S <= 30
    with pytest.raises(AuthenticationFailed, match="revoked"):
        await store.authenticate(secret)


async def test_a_disabled_key_can_be_enabled_again(store: KeyStore) -> None:
    """Unlike a revoked one."""
    key, secret = await store.create()
    disabled = await store.update(key, disabled=True)
    assert disabled is not None
    with pytest.raises(AuthenticationFailed, match="disabled"):
        await store.authenticate(secret)
    await store.update(disabled, disabled=False)
    assert await store.authenticate(secret) is not None


async def test_a_key_expires_to_the_second(store: KeyStore, clock: TestClock) -> None:
    """Though it is remembered for longer."""
    clock.now_s = 4_070_908_799.0  # a second before 2099
    _, secret = await store.create(expires_at="2099-01-01T00:00:00Z")
    assert await store.authenticate(secret) is not None
    clock.now_s += 1
    with pytest.raises(AuthenticationFailed, match="expired"):
        await store.authenticate(secret)


async def test_both_secrets_work_while_a_rotation_overlaps(
    store: KeyStore, clock: TestClock
) -> None:
    """Then only the new one does; the key stays the same."""
    key, old = await store.create()
    new = await store.rotate(key, overlap_s=60)
    assert await store.authenticate(old) == await store.authenticate(new) == key.principal
    clock.now_s += 60
    assert await store.authenticate(old) is None
    assert await store.authenticate(new) == key.principal


async def test_no_more_than_two_secrets_live(store: KeyStore, clock: TestClock) -> None:
    """The second rotation ends the first secret, however long it might have lived."""
    key, first = await store.create()
    clock.now_s += 1
    second = await store.rotate(key, overlap_s=600)
    clock.now_s += 1
    third = await store.rotate(key, overlap_s=60)
    found = [await store.authenticate(secret) for secret in (first, second, third)]
    assert found == [None, key.principal, key.principal]
    clock.now_s += 60
    assert await store.authenticate(second) is None


async def test_keys_of_the_first_version_are_taken_over(tmp_path: Path) -> None:
    """Once: a key that was revoked since stays so."""
    (tmp_path / "pepper").write_bytes(PEPPER)
    old = "sk-pc-abcdefghijkl-" + "x" * 40
    entry = {
        "id": "key_abcdefghijkl",
        "digest": digest_of(old, PEPPER).hex(),
        "label": "old",
        "account_id": None,
        "created_at": "2026-01-01T00:00:00Z",
    }
    (tmp_path / "keys.json").write_text(json.dumps({"version": 1, "keys": [entry]}))
    store, minted = load_or_mint(tmp_path, None)
    assert minted is None
    assert await store.authenticate(old) is not None
    key = await store.find("key_abcdefghijkl")
    assert key is not None
    await store.revoke(key)
    again, _ = load_or_mint(tmp_path, None)
    with pytest.raises(AuthenticationFailed, match="revoked"):
        await again.authenticate(old)


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"version": 1}', '{"version": 2, "keys": []}', '{"version": 1, "keys": [{}]}'],
)
def test_a_damaged_file_of_the_first_version_stops_start_up(tmp_path: Path, content: str) -> None:
    """Keys that cannot be understood are never replaced by a new one."""
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"keys\.json"):
        load_or_mint(tmp_path, None)
    assert (tmp_path / "keys.json").read_text() == content


@pytest.mark.parametrize("content", [b"no database" * 100, None])
def test_a_file_of_another_program_stops_start_up(tmp_path: Path, content: bytes | None) -> None:
    """And is left as it is."""
    path = tmp_path / "access.sqlite"
    if content is None:
        db = sqlite3.connect(path)
        db.execute("PRAGMA user_version = 99")
        db.close()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"version 99|not a database"):
        load_or_mint(tmp_path, None)


@pytest.mark.parametrize("content", [None, b"short"])
def test_a_missing_or_damaged_pepper_stops_start_up(tmp_path: Path, content: bytes | None) -> None:
    """Without the pepper no stored key can be checked."""
    load_or_mint(tmp_path, None)
    (tmp_path / "pepper").unlink()
    if content is not None:
        (tmp_path / "pepper").write_bytes(content)
    with pytest.raises(ConfigurationError, match="pepper"):
        load_or_mint(tmp_path, None)


async def test_servers_that_start_at_once_share_a_folder(tmp_path: Path) -> None:
    """A pepper that another server has just written is used, not replaced."""
    (tmp_path / "pepper").write_bytes(PEPPER)
    _, key = load_or_mint(tmp_path, None)
    assert key is not None
    assert (tmp_path / "pepper").read_bytes() == PEPPER
    again, _ = load_or_mint(tmp_path, None)
    assert await again.authenticate(key) is not None


async def test_replicas_with_one_pepper_know_each_others_keys(tmp_path: Path) -> None:
    """The pepper may come from a secrets manager; then no file holds it."""
    one, key = load_or_mint(tmp_path, None, pepper=PEPPER)
    two, _ = load_or_mint(tmp_path, None, pepper=PEPPER)
    assert key is not None
    assert await two.authenticate(key) == await one.authenticate(key) is not None
    assert not (tmp_path / "pepper").exists()
    with pytest.raises(ConfigurationError, match="16 bytes"):
        load_or_mint(tmp_path, None, pepper=b"too short")


def test_a_folder_that_cannot_be_written_stops_start_up(tmp_path: Path) -> None:
    """The message names the setting that helps."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="set api_key instead"):
        load_or_mint(tmp_path / "file" / "data", None)


async def test_a_locked_file_keeps_nobody_out(store: KeyStore, database: AccessDatabase) -> None:
    """Whoever reads does not wait for who writes."""
    _, key = await store.create()
    locker = sqlite3.connect(database.path, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    try:
        assert await store.authenticate(key) is not None
    finally:
        locker.close()


async def test_a_file_that_cannot_be_read_is_no_wrong_key(
    store: KeyStore, database: AccessDatabase
) -> None:
    """Clients try a 503 again and give up at a 401; who is remembered goes on."""
    _, known = await store.create()
    _, other = await store.create()
    await store.authenticate(known)
    breaker = sqlite3.connect(database.path)
    breaker.execute("DROP TABLE secrets")
    breaker.close()
    assert await store.authenticate(known) is not None
    with pytest.raises(Unavailable, match="cannot be checked"):
        await store.authenticate(other)


async def test_wrong_keys_fail(store: KeyStore) -> None:
    """Prefixes, look-alikes, injections, control bytes and megabytes are simply unknown (A3)."""
    _, key = await store.create()
    wrong = [
        "",
        key[:-1],
        key + "x",
        key + "\x00",
        key.replace("sk", "ѕk"),  # noqa: RUF001 - the look-alike is the point
        key.upper(),
        "' OR 1=1 --",
        "\x00",
        "k" * 2**20,
        "é" * 2**20,
        "\udce9\ud800",
        key + " " * 600,
    ]
    assert [await store.authenticate(attempt) for attempt in wrong] == [None] * len(wrong)
    assert await store.authenticate(key) is not None


@pytest.mark.soak
async def test_time_does_not_tell_how_close_a_guess_is(store: KeyStore) -> None:
    """Guesses that share a key's beginning take as long as wholly wrong ones (A2).

    Welch's t of 10^5 interleaved pairs stays below 4.5, as for two equal distributions it does
    in all but one of 10^5 runs.
    """
    key = "sk-fixed-" + secrets.token_hex(24)
    store.replace_fixed([(key, ApiKey(id="key_fixed"))])
    samples: tuple[list[int], list[int]] = ([], [])
    for turn in range(100_000):
        close, far = key[:-8] + secrets.token_hex(4), secrets.token_hex(30)[: len(key)]
        pairs = [(samples[0], close), (samples[1], far)]
        for times, guess in pairs if turn % 2 else reversed(pairs):
            start = time.perf_counter_ns()
            await store.authenticate(guess)
            times.append(time.perf_counter_ns() - start)
    difference = statistics.mean(samples[0]) - statistics.mean(samples[1])
    spread = sum(statistics.variance(times) / len(times) for times in samples)
    assert abs(difference) / spread**0.5 < 4.5

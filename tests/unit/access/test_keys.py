"""API keys: minting, storing, checking."""

import json
import re
import secrets
import stat
import statistics
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_core.access import KEY_PATTERN, KeyStore, load_or_mint
from provider_core.access.keys import MAX_KEY_BYTES
from provider_core.errors import ConfigurationError

PEPPER = bytes(range(32))
FIXED = "a fixed key with späces"


def mode(path: Path) -> int:
    """Permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_first_start_mints_a_key_that_works(tmp_path: Path) -> None:
    """With no key anywhere one is minted, returned once, and accepted."""
    store, key = load_or_mint(tmp_path / "data", None)
    assert key is not None
    assert re.fullmatch(KEY_PATTERN, key)
    principal = store.authenticate(key)
    assert principal is not None
    assert principal.api_key_id == "key_" + key.split("-")[2]


def test_second_start_knows_the_key_and_mints_none(tmp_path: Path) -> None:
    """The stored hash outlives the process."""
    first, key = load_or_mint(tmp_path, None)
    second, minted = load_or_mint(tmp_path, None)
    assert minted is None
    assert key is not None
    assert second.authenticate(key) == first.authenticate(key) is not None


def test_the_folder_holds_no_key(tmp_path: Path) -> None:
    """Neither file contains the secret, and only the owner can read them."""
    _, key = load_or_mint(tmp_path / "data", None)
    assert key is not None
    secret = key.rsplit("-", 1)[1].encode()
    files = sorted((tmp_path / "data").iterdir())
    assert [file.name for file in files] == ["keys.json", "pepper"]
    assert not any(secret in file.read_bytes() for file in files)
    assert [mode(file) for file in files] == [0o600, 0o600]
    assert mode(tmp_path / "data") == 0o700


def test_fixed_key_writes_nothing(tmp_path: Path) -> None:
    """A fixed key serves from a read-only file system."""
    store, minted = load_or_mint(tmp_path / "data", FIXED)
    assert minted is None
    assert not (tmp_path / "data").exists()
    principal = store.authenticate(FIXED)
    assert principal is not None
    assert principal.api_key_id == "key_fixed"


def test_fixed_key_stands_beside_stored_ones(tmp_path: Path) -> None:
    """Setting a fixed key does not lock the minted one out."""
    _, key = load_or_mint(tmp_path, None)
    assert key is not None
    store, _ = load_or_mint(tmp_path, FIXED)
    assert store.authenticate(FIXED) is not None
    assert store.authenticate(key) is not None


def test_a_trailing_newline_of_a_fixed_key_is_no_part_of_it(tmp_path: Path) -> None:
    """Secrets mounted from files end in a newline, which no header can carry."""
    store, _ = load_or_mint(tmp_path, FIXED + "\n")
    assert store.authenticate(FIXED) is not None


def test_an_over_long_fixed_key_stops_start_up(tmp_path: Path) -> None:
    """It could never be presented, so it is refused at once."""
    load_or_mint(tmp_path, "k" * MAX_KEY_BYTES)
    with pytest.raises(ConfigurationError, match="512 bytes"):
        load_or_mint(tmp_path, "k" * (MAX_KEY_BYTES + 1))


def test_minted_keys_add_up(tmp_path: Path) -> None:
    """Two stores on one folder do not overwrite each other's keys."""
    one, first = load_or_mint(tmp_path, None)
    two, _ = load_or_mint(tmp_path, None)
    keys = [first, one.mint(label="one", account_id="acme"), two.mint(label="two")]
    again = KeyStore.load(tmp_path)
    assert again is not None
    found = [again.authenticate(key or "") for key in keys]
    assert [principal and principal.label for principal in found] == ["first", "one", "two"]
    assert [principal and principal.account_id for principal in found] == [None, "acme", None]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"version": 1}',
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": [{"id": "key_a", "digest": "no hex"}]}',
        '{"version": 1, "keys": [{"name": "key_a"}]}',
    ],
)
def test_a_damaged_file_stops_start_up(tmp_path: Path, content: str) -> None:
    """A key file that cannot be understood is never replaced by a new key."""
    load_or_mint(tmp_path, None)
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"keys\.json"):
        load_or_mint(tmp_path, None)
    assert (tmp_path / "keys.json").read_text() == content


def test_a_missing_pepper_stops_start_up(tmp_path: Path) -> None:
    """Without the pepper no stored key can be checked."""
    load_or_mint(tmp_path, None)
    (tmp_path / "pepper").unlink()
    with pytest.raises(ConfigurationError, match="pepper"):
        load_or_mint(tmp_path, None)


def test_a_damaged_pepper_stops_start_up(tmp_path: Path) -> None:
    """A pepper cut short would turn every stored key away."""
    load_or_mint(tmp_path, None)
    (tmp_path / "pepper").write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="32 bytes"):
        load_or_mint(tmp_path, None)


def test_servers_that_start_at_once_share_a_folder(tmp_path: Path) -> None:
    """A pepper that another server has just written is used, not replaced."""
    (tmp_path / "pepper").write_bytes(PEPPER)
    _, key = load_or_mint(tmp_path, None)
    assert key is not None
    assert (tmp_path / "pepper").read_bytes() == PEPPER
    again = KeyStore.load(tmp_path)
    assert again is not None
    assert again.authenticate(key) is not None


def test_a_folder_that_cannot_be_written_stops_start_up(tmp_path: Path) -> None:
    """The message names the setting that helps."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="set api_key instead"):
        load_or_mint(tmp_path / "file" / "data", None)


def test_wrong_keys_fail() -> None:
    """Prefixes, look-alikes, injections, control bytes and megabytes are simply unknown (A3)."""
    store = KeyStore(PEPPER)
    key = store.mint()
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
    assert [store.authenticate(attempt) for attempt in wrong] == [None] * len(wrong)
    assert store.authenticate(key) is not None


@given(st.text())
def test_authenticate_never_raises(key: str) -> None:
    """Any string is a wrong key, not an error."""
    store = KeyStore(PEPPER)
    store.mint()
    assert store.authenticate(key) is None


def test_the_digest_of_nobody_opens_nothing() -> None:
    """The digest that unknown keys are compared with belongs to no principal."""
    assert KeyStore(PEPPER).authenticate("anything") is None


def test_store_file_is_documented_json(tmp_path: Path) -> None:
    """What is kept is what `StoredKey` says."""
    load_or_mint(tmp_path, None)
    document = json.loads((tmp_path / "keys.json").read_text())
    assert document["version"] == 1
    assert sorted(document["keys"][0]) == ["account_id", "created_at", "digest", "id", "label"]


@pytest.mark.soak
def test_time_does_not_tell_how_close_a_guess_is() -> None:
    """Guesses that share a key's beginning take as long as wholly wrong ones (A2).

    Welch's t of 10^5 interleaved pairs stays below 4.5, as for two equal distributions it does
    in all but one of 10^5 runs.
    """
    store = KeyStore(PEPPER)
    key = store.mint()
    samples: tuple[list[int], list[int]] = ([], [])
    for turn in range(100_000):
        close, far = key[:-8] + secrets.token_hex(4), secrets.token_hex(30)[: len(key)]
        pairs = [(samples[0], close), (samples[1], far)]
        for times, guess in pairs if turn % 2 else reversed(pairs):
            start = time.perf_counter_ns()
            store.authenticate(guess)
            times.append(time.perf_counter_ns() - start)
    difference = statistics.mean(samples[0]) - statistics.mean(samples[1])
    spread = sum(statistics.variance(times) / len(times) for times in samples)
    assert abs(difference) / spread**0.5 < 4.5

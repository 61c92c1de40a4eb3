"""Where the keys of a server come from: settings, URIs, a file, and the data folder."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from provider_core import hookimpl
from provider_core.errors import AuthenticationFailed, ConfigurationError, SecretNotFound
from provider_core.plugins import PluginManager, make_plugin_manager
from provider_core.server import open_keys as open_keys_module
from provider_core.server.open_keys import following_given_keys, open_keys, open_stored_keys
from provider_core.settings import Settings, load_settings

FILE = """
[[key]]
id = "acme"
secrets = ["vault://new", "vault://old"]
label = "Acme"
account_id = "acme"
models = ["one", "two"]
spend_limit = "100"
spend_reset = "monthly"
requests_per_minute = 5

[[key]]
id = "ended"
secrets = ["vault://ended"]
expires_at = 2020-01-01T02:00:00+02:00
"""


class Vault:
    """A plugin with a store of secrets.

    Attributes:
        version: Of each secret.
        documents: Secrets that are files of keys, by name.
        is_down: It answers nobody.
        absent: Names of secrets that are not there.
        unreadable: What it raises for secrets that it cannot read now, by name.
        num_asked: Times that it was asked.
    """

    def __init__(self) -> None:
        self.version = "secret"
        self.documents: dict[str, str] = {}
        self.is_down = False
        self.absent: set[str] = set()
        self.unreadable: dict[str, Exception] = {}
        self.num_asked = 0

    @hookimpl
    def load_secret(self, uri: str) -> bytes | None:
        """Make a secret of the name."""
        self.num_asked += 1
        if self.is_down:
            raise ConfigurationError(f"{uri}: no answer")
        scheme, _, name = uri.partition("://")
        if scheme != "vault":
            return None
        if name in self.absent:
            raise SecretNotFound(f"{uri}: no such secret")
        if name in self.unreadable:
            raise self.unreadable[name]
        return self.documents.get(name, f"the {self.version} of {name}\n").encode()


def plugins(vault: Vault | None = None) -> PluginManager:
    """The core's and the vault."""
    manager = make_plugin_manager(Settings(plugins=()))
    manager.register(vault or Vault())
    return manager


def settings(folder: Path, **values: object) -> Settings:
    """Of a server with this data folder."""
    return load_settings(**{"data_dir": folder / "data", **values})


async def test_keys_of_a_file_have_all_that_stored_ones_have(tmp_path: Path) -> None:
    """Both secrets open, and nothing is written."""
    (tmp_path / "keys.toml").write_text(FILE)
    given = settings(tmp_path, access={"keys_file": tmp_path / "keys.toml"})
    store, minted = open_keys(given, plugins())
    assert minted is None
    new = await store.authenticate("the secret of new")
    assert new is not None
    assert new == await store.authenticate("the secret of old")
    assert (new.api_key_id, new.account_id, new.label) == ("key_acme", "acme", "Acme")
    assert (new.models, new.rate_limits.requests_per_minute) == (("one", "two"), 5)
    assert new.spend_limit is not None
    assert (str(new.spend_limit.usd), new.spend_limit.reset) == ("100", "monthly")
    with pytest.raises(AuthenticationFailed, match="expired"):
        await store.authenticate("the secret of ended")
    assert not given.data_dir.exists()


async def test_the_fixed_key_may_be_a_uri(tmp_path: Path) -> None:
    """It is what the plugin says, without its newline; a plain key stays what it is."""
    store, _ = open_keys(settings(tmp_path, api_key="vault://fixed"), plugins())
    principal = await store.authenticate("the secret of fixed")
    assert principal is not None
    assert principal.api_key_id == "key_fixed"
    assert await store.authenticate("vault://fixed") is None
    store, _ = open_keys(settings(tmp_path, api_key="a plain key"), plugins())
    assert await store.authenticate("a plain key") is not None


async def test_the_pepper_may_be_a_uri(tmp_path: Path) -> None:
    """Then servers and the command line hash alike, and no file holds it."""
    given = settings(tmp_path, access={"pepper": "vault://pepper"})
    store, first = open_keys(given, plugins())
    manager = open_stored_keys(given, plugins())
    _, second = await manager.create()
    assert first is not None
    assert await store.authenticate(second) is not None
    assert await manager.authenticate(first) is not None
    assert not (given.data_dir / "pepper").exists()
    store.close()
    manager.close()


@pytest.mark.parametrize("byte", b"x \n\t")
async def test_every_byte_of_a_pepper_counts(tmp_path: Path, byte: int) -> None:
    """A server that names the file of another one's pepper knows its keys."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "pepper").write_bytes(bytes([byte, *range(100, 130), byte]))
    store, secret = open_keys(settings(tmp_path), plugins())
    named = settings(tmp_path, access={"pepper": f"file://{folder}/pepper"})
    manager = open_stored_keys(named, plugins())
    assert secret is not None
    assert await manager.authenticate(secret) is not None
    store.close()
    manager.close()


@pytest.mark.parametrize(
    ("uri", "problem"),
    [("other://secret", "no plugin reads"), ("env://EMPTY_KEY", "8 characters at least")],
)
def test_a_key_that_cannot_be_had_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, problem: str
) -> None:
    """The message names the URI."""
    monkeypatch.setenv("EMPTY_KEY", "")
    with pytest.raises(ConfigurationError, match=f"{uri}: .*{problem}"):
        open_keys(settings(tmp_path, api_key=uri), plugins())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[[key", "not valid TOML"),
        ('[[key]]\nid = "a"', r"key\.0\.secrets: field required"),
        ('[[key]]\nid = "a"\nsecrets = ["sk-canary"]', r"key\.0\.secrets\.0"),
        ('[[key]]\nid = "a"\nsecrets = ["env://A"]\nscope = "root"', r"key\.0\.scope"),
        ('[[key]]\nid = "a"\nsecrets = ["env://A"]\nlimit = 1', r"key\.0\.limit: extra"),
        ('[[key]]\nid = "a"\nsecrets = ["env://A"]\nspend_limit = "-1"', "spend_limit"),
        ('[[key]]\nid = "a"\nsecrets = ["env://A"]\n' * 2, "two keys have the same id"),
    ],
)
def test_a_wrong_file_stops_the_start(tmp_path: Path, content: str, problem: str) -> None:
    """The message says where, and nothing of what might be a secret."""
    (tmp_path / "keys.toml").write_text(content)
    given = settings(tmp_path, access={"keys_file": tmp_path / "keys.toml"})
    with pytest.raises(ConfigurationError, match=problem) as failure:
        open_keys(given, plugins())
    assert "canary" not in str(failure.value)


def test_a_missing_file_stops_the_start(tmp_path: Path) -> None:
    """It might hold the only keys."""
    given = settings(tmp_path, access={"keys_file": tmp_path / "none.toml"})
    with pytest.raises(ConfigurationError, match="cannot read the keys"):
        open_keys(given, plugins())


def test_a_file_named_in_the_configuration_is_relative_to_it(tmp_path: Path) -> None:
    """As its folders are."""
    (tmp_path / "provider.toml").write_text('[access]\nkeys_file = "keys.toml"\n')
    given = load_settings(config=tmp_path / "provider.toml")
    assert given.access.keys_file == tmp_path / "keys.toml"


async def test_a_file_of_keys_may_be_a_secret_itself(tmp_path: Path) -> None:
    """Named by a URI, which is no path; what is wrong with it is said without its content."""
    vault = Vault()
    vault.documents["keys"] = FILE
    given = load_settings(data_dir=tmp_path / "data", access={"keys_file": "vault://keys"})
    store, _ = open_keys(given, plugins(vault))
    assert await store.authenticate("the secret of new") is not None
    vault.documents["keys"] = "[[key]]\ncanary"
    with pytest.raises(ConfigurationError, match="vault://keys is not valid TOML") as failure:
        open_keys(given, plugins(vault))
    assert "canary" not in str(failure.value)


async def until_asked_again(vault: Vault) -> None:
    """Until the vault was asked for all secrets and the answers are in."""
    num_asked = vault.num_asked
    while vault.num_asked < num_asked + 2:  # noqa: ASYNC110 - of a plugin, in a thread
        await asyncio.sleep(0)


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are read again as soon as they have been read."""
    monkeypatch.setattr(open_keys_module, "REREAD_S", 0)


@pytest.mark.usefixtures("_at_once")
async def test_rotated_secrets_are_followed(tmp_path: Path) -> None:
    """The new one is let in and the old one refused, without a restart."""
    vault = Vault()
    manager, given = plugins(vault), settings(tmp_path, api_key="vault://fixed")
    store, _ = open_keys(given, manager)
    async with following_given_keys(store, given, manager):
        vault.version = "successor"
        while await store.authenticate("the successor of fixed") is None:
            await until_asked_again(vault)
        assert await store.authenticate("the secret of fixed") is None


@pytest.mark.usefixtures("_at_once")
async def test_a_process_speaks_for_its_fixed_key_as_long_as_that_is_let_in(tmp_path: Path) -> None:
    """Whatever the key becomes, while nobody can read it too; not once it is gone."""
    vault = Vault()
    manager, given = plugins(vault), settings(tmp_path, api_key="vault://fixed")
    store, _ = open_keys(given, manager)
    async with following_given_keys(store, given, manager):
        vault.version = "successor"
        while await store.authenticate("the successor of fixed") is None:
            await until_asked_again(vault)
        vault.is_down = True
        await until_asked_again(vault)
        principal = await store.authenticate(store.internal_secret)
        assert principal is not None
        assert principal.api_key_id == "key_fixed"
        vault.is_down = False
        vault.absent.add("fixed")
        while await store.authenticate("the successor of fixed") is not None:
            await until_asked_again(vault)
        assert await store.authenticate(store.internal_secret) is None


async def test_a_process_without_a_fixed_key_speaks_for_nobody(tmp_path: Path) -> None:
    """Keys of a file are their owners'."""
    (tmp_path / "keys.toml").write_text(FILE)
    for given in ({}, {"access": {"keys_file": tmp_path / "keys.toml"}}):
        store, _ = open_keys(settings(tmp_path, **given), plugins())
        assert await store.authenticate(store.internal_secret) is None
        store.close()


@pytest.mark.usefixtures("_at_once")
async def test_a_vault_that_is_down_locks_nobody_out(tmp_path: Path) -> None:
    """Keys stay as they were, which is said; when it is back it is listened to again."""
    (tmp_path / "keys.toml").write_text(FILE)
    vault = Vault()
    manager = plugins(vault)
    given = settings(tmp_path, access={"keys_file": tmp_path / "keys.toml"})
    store, _ = open_keys(given, manager)
    async with following_given_keys(store, given, manager):
        vault.is_down = True
        with capture_logs() as logs:
            while not logs:
                await until_asked_again(vault)
        assert (logs[0]["event"], logs[0]["error"]) == ("keys.unreadable", "vault://new: no answer")
        assert await store.authenticate("the secret of new") is not None
        vault.is_down = False
        (tmp_path / "keys.toml").write_text("")
        while await store.authenticate("the secret of new") is not None:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("failure", [ConfigurationError("no answer"), OSError("canary")])
async def test_each_key_is_followed_by_itself(tmp_path: Path, failure: Exception) -> None:
    """One that cannot be read stays, one that is gone or too short goes, others are followed."""
    names = ("unreadable", "deleted", "blanked", "left out", "rotated")
    tables = {name: f'[[key]]\nid = "{name[:4]}"\nsecrets = ["vault://{name}"]\n' for name in names}
    file = tmp_path / "keys.toml"
    file.write_text("".join(tables.values()))
    vault = Vault()
    manager, given = plugins(vault), settings(tmp_path, access={"keys_file": file})
    store, _ = open_keys(given, manager)
    async with following_given_keys(store, given, manager):
        vault.unreadable["unreadable"] = failure
        vault.absent.add("deleted")
        vault.documents.update({"blanked": " \n", "rotated": "the successor"})
        file.write_text("".join(tables[name] for name in names if name != "left out"))
        with capture_logs() as logs:
            while await store.authenticate("the successor") is None:
                await until_asked_again(vault)
    let_in = [name for name in names if await store.authenticate(f"the secret of {name}")]
    assert let_in == ["unreadable"]
    assert "canary" not in str(logs)


@pytest.mark.usefixtures("_at_once")
async def test_keys_that_nothing_names_are_not_followed(tmp_path: Path) -> None:
    """A plain key costs nobody a look."""
    vault = Vault()
    manager, given = plugins(vault), settings(tmp_path, api_key="a plain key")
    store, _ = open_keys(given, manager)
    num_tasks = len(asyncio.all_tasks())
    async with following_given_keys(store, given, manager):
        assert len(asyncio.all_tasks()) == num_tasks
    assert vault.num_asked == 0


def test_a_change_is_seen_within_half_a_minute() -> None:
    """What is said of keys that are revoked or rotated."""
    assert open_keys_module.REREAD_S + 5 <= 30

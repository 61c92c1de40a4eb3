"""Where the keys of a server come from: settings, URIs, a file, and the data folder."""

from pathlib import Path

import pytest

from provider_core import hookimpl
from provider_core.errors import AuthenticationFailed, ConfigurationError
from provider_core.plugins import PluginManager, make_plugin_manager
from provider_core.server.open_keys import open_keys, open_stored_keys
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
    """A plugin with a store of secrets."""

    @hookimpl
    def load_secret(self, uri: str) -> bytes | None:
        """Make a secret of the name."""
        scheme, _, name = uri.partition("://")
        return None if scheme != "vault" else f"the secret of {name}\n".encode()


def plugins() -> PluginManager:
    """The core's and the vault."""
    manager = make_plugin_manager(Settings(plugins=()))
    manager.register(Vault())
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

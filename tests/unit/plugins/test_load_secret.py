"""Secrets that the configuration names by a URI."""

from pathlib import Path

import pytest

from provider_core import ConfigurationError, hookimpl, hookspecs
from provider_core.plugins import make_plugin_manager
from provider_core.settings import Settings


class Vault:
    """A plugin with a store of secrets."""

    @hookimpl
    def load_secret(self, uri: str) -> bytes | None:
        """Answer for one scheme."""
        return b"from the vault" if uri.startswith("vault://") else None


def load(uri: str) -> bytes | None:
    """Ask the core and the vault."""
    manager = make_plugin_manager(Settings(plugins=()))
    manager.register(Vault())
    return manager.first(hookspecs.load_secret, uri=uri)


def test_load_secret() -> None:
    """A plugin answers for its scheme, and a scheme of nobody is declined by all."""
    assert load("vault://pepper") == b"from the vault"
    assert load("other://pepper") is None


def test_the_core_reads_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the byte: what is white space in a text is none in a pepper."""
    monkeypatch.setenv("A_SECRET", "of the environment\n")
    assert load("env://A_SECRET") == b"of the environment\n"


def test_the_core_reads_files(tmp_path: Path) -> None:
    """As orchestrators mount them."""
    (tmp_path / "a secret").write_bytes(b" of a file\n")
    assert load(f"file://{tmp_path}/a%20secret") == b" of a file\n"


@pytest.mark.parametrize("uri", ["env://NO_SUCH_VARIABLE_HERE", "file:///no/such/file"])
def test_a_secret_that_is_not_there_stops_the_start(uri: str) -> None:
    """The message says which."""
    with pytest.raises(ConfigurationError, match=uri):
        load(uri)

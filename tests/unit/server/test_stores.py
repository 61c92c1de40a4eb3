"""Where a server counts: what a plugin keeps, else its own."""

from pathlib import Path

import pytest

from provider_core import StoreKind, hookimpl
from provider_core.access.credits import CreditStore
from provider_core.access.limit_store import MemoryLimitStore
from provider_core.errors import PluginError
from provider_core.plugins import PluginManager
from provider_core.server.stores import open_credit_ledger, open_limit_store
from provider_core.settings import Settings


class Shared:
    """A plugin that keeps one kind."""

    def __init__(self, kind: StoreKind, store: object) -> None:
        self._kind = kind
        self._store = store

    @hookimpl
    def make_store(self, kind: StoreKind) -> object:
        """Answer for that kind."""
        return self._store if kind == self._kind else None


def plugins_with(*plugins: object) -> PluginManager:
    """A manager of these."""
    manager = PluginManager()
    for plugin in plugins:
        manager.register(plugin)
    return manager


def test_without_a_plugin_a_server_counts_by_itself(tmp_path: Path) -> None:
    """Money in its data folder."""
    settings, plugins = Settings(data_dir=tmp_path), plugins_with()

    assert open_limit_store(settings, plugins) is None
    assert isinstance(open_credit_ledger(settings, plugins), CreditStore)


def test_a_plugins_store_is_used(tmp_path: Path) -> None:
    """For the kind that it keeps."""
    store = MemoryLimitStore()
    settings, plugins = Settings(data_dir=tmp_path), plugins_with(Shared("limits", store))

    assert open_limit_store(settings, plugins) is store
    assert isinstance(open_credit_ledger(settings, plugins), CreditStore)


def test_a_store_of_the_wrong_kind_stops_the_start(tmp_path: Path) -> None:
    """By name, and not at the first request."""
    settings = Settings(data_dir=tmp_path)
    plugins = plugins_with(Shared("credits", MemoryLimitStore()), Shared("limits", Path()))

    with pytest.raises(PluginError, match="MemoryLimitStore where credits are kept"):
        open_credit_ledger(settings, plugins)
    with pytest.raises(PluginError, match="Path where limits are kept"):
        open_limit_store(settings, plugins)

"""Where a server counts rates and money: in the store of a plugin, or in the core's own."""

from provider_core import hookspecs
from provider_core.access.credits import CreditStore
from provider_core.access.database import FILE_NAME, AccessDatabase
from provider_core.errors import PluginError
from provider_core.plugins import PluginManager
from provider_core.settings import Settings
from provider_core.stores import CreditLedger, LimitStore


def open_limit_store(settings: Settings, plugins: PluginManager) -> LimitStore | None:
    """The store in which replicas count together; `None` if each counts by itself.

    Raises:
        PluginError: A plugin answered something else.
    """
    store = plugins.first(hookspecs.make_store, kind="limits", settings=settings)
    if store is None or isinstance(store, LimitStore):
        return store
    raise PluginError(f"make_store answered {type(store).__name__} where limits are kept")


def open_credit_ledger(
    settings: Settings, plugins: PluginManager, *, durable: bool = False
) -> CreditLedger:
    """The ledger of a plugin, or the data folder's.

    Args:
        settings: Name the folder.
        plugins: Asked first.
        durable: Of the folder's: wait for the disk at each change. A server has its journal.

    Raises:
        PluginError: A plugin answered something else.
    """
    ledger = plugins.first(hookspecs.make_store, kind="credits", settings=settings)
    if ledger is None:
        return CreditStore(AccessDatabase(settings.data_dir / FILE_NAME, durable=durable))
    if isinstance(ledger, CreditLedger):
        return ledger
    raise PluginError(f"make_store answered {type(ledger).__name__} where credits are kept")

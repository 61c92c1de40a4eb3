"""The durable journal under the usage event: files that survive a crash, and what reads them."""

from provider_core.billing.journal.disk import Disk
from provider_core.billing.journal.usage_journal import UsageJournal

__all__ = ["Disk", "UsageJournal"]

"""What `provider doctor` finds: one line for each thing that serving needs."""

from dataclasses import dataclass
from typing import Literal

FindingStatus = Literal["ok", "missing", "failed"]
"""`missing` is not installed or not configured, and nothing that is used needs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: Of the thing, in a word or two.
        detail: What is there, or why it is not, in one line.
        remedy: The command, or the deed, that helps; empty where nothing needs to.
    """

    name: str
    status: FindingStatus
    detail: str
    remedy: str = ""

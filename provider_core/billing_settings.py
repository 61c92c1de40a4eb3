"""What is kept of requests: their bills, what can be looked up, and answers that may be repeated.

Tables of `Settings`; `docs/configuration.md` explains each.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from provider_core.model_settings import Table


class JournalSettings(Table):
    """`[journal]`: usage lines on disk before the last bytes of their answers leave."""

    enabled: bool = Field(True, description="`false`: bills end with the process.")  # noqa: FBT003
    dir: Path | None = Field(None, description="Its folder; default: `journal` in `data_dir`.")
    segment_bytes: int = Field(64 * 2**20, ge=65536, description="Size at which a file is full.")
    max_bytes: int = Field(2**30, ge=2**20, description="Written ones go early beyond this size.")
    min_free_bytes: int = Field(64 * 2**20, ge=0, description="Less free disk refuses requests.")
    retention_days: float = Field(35, gt=0, description="Then written files are deleted.")
    on_failure: Literal["reject", "stdout_only", "serve_unbilled"] = Field(
        "reject",
        description="`stdout_only` serves on while the disk fails, `serve_unbilled` for nothing.",
    )
    sink_grace_s: float = Field(900, gt=0, description="A log stuck for longer refuses requests.")
    bill_unknown_delivery: bool = Field(
        False,  # noqa: FBT003 - the default's place in pydantic
        description="Bill answers of which a crash hid whether they left.",
    )
    log_open: bool = Field(False, description="Log a `usage.open` line at each admission.")  # noqa: FBT003


class LedgerSettings(Table):
    """`[ledger]`: what each generation used, kept to be looked up."""

    enabled: bool = Field(True, description="`false`: nothing can be looked up.")  # noqa: FBT003
    retention_days: float = Field(
        35, ge=31, description="Then a generation is forgotten, but not what it cost."
    )


class IdempotencySettings(Table):
    """`[idempotency]`: answers kept in memory for clients that may have to ask twice."""

    max_keys: int = Field(
        50_000, ge=0, description="Idempotency keys remembered; 0 ignores the header."
    )
    max_bytes: int = Field(64 * 2**20, ge=0, description="Memory for their answers, about.")
    retention_s: float = Field(86_400, gt=0, description="Then a key and its answer are forgotten.")


class ResponseCacheSettings(Table):
    """`[response_cache]`: whole answers in memory, for clients that ask for it."""

    max_bytes: int = Field(0, ge=0, description="Memory for answers, about; 0 keeps none.")

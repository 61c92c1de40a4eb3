"""`access.sqlite` in the data folder: keys, credits, and what has been charged to them.

One thread owns the connection, so nobody waits for a disk on the event loop; other processes, such
as the command line, may use the file at the same time. A transaction that another process keeps
waiting for too long fails and changes nothing.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from provider_core.errors import ConfigurationError

FILE_NAME = "access.sqlite"

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

_VERSION = 1
_BUSY_S = 5.0  # another process may be writing

_SCHEMA = f"""
PRAGMA user_version = {_VERSION};
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, label TEXT NOT NULL, account_id TEXT,
    scope TEXT NOT NULL, models TEXT, spend_limit TEXT, spend_reset TEXT,
    requests_per_minute INTEGER, requests_per_day INTEGER, tokens_per_minute INTEGER,
    concurrent_requests INTEGER, created_at TEXT NOT NULL, updated_at TEXT, expires_at TEXT,
    disabled INTEGER NOT NULL, revoked_at TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secrets (
    digest BLOB PRIMARY KEY, key_id TEXT NOT NULL, created_at TEXT NOT NULL, expires_at TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS secrets_of_key ON secrets (key_id);
CREATE TABLE IF NOT EXISTS movements (
    event_id TEXT PRIMARY KEY, at_s REAL NOT NULL, kind TEXT NOT NULL, account_id TEXT,
    api_key_id TEXT, usd TEXT NOT NULL, note TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS movements_by_time ON movements (at_s);
CREATE INDEX IF NOT EXISTS movements_of_account ON movements (account_id, at_s);
CREATE TABLE IF NOT EXISTS accounts (
    id TEXT PRIMARY KEY, bought TEXT NOT NULL, used TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spending (
    api_key_id TEXT, day TEXT, usd TEXT NOT NULL, PRIMARY KEY (api_key_id, day)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reservations (
    generation_id TEXT PRIMARY KEY, account_id TEXT, api_key_id TEXT NOT NULL, usd TEXT NOT NULL,
    expires_s REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (name TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
"""
"""`spending`: of a key on a day, and in all on the day ''. `segments`: files of journals read."""


class AccessDatabase:
    """The file, behind one thread. Nothing is read or made before the first job.

    Args:
        path: Of the file.
        durable: Wait for the disk at each commit. What a server charges is in its journal, too;
            what a person enters is not.
        busy_s: How long a job waits for other processes.
    """

    def __init__(self, path: Path, *, durable: bool = False, busy_s: float = _BUSY_S) -> None:
        self.path = path
        self._durable = durable
        self._busy_s = busy_s
        self._db: sqlite3.Connection | None = None
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="access")

    def exists(self) -> bool:
        """Whether there is anything to read."""
        return self._db is not None or self.path.exists()

    def submit(self, job: Job[T], *, reads_only: bool = False) -> "Future[T]":
        """Run a job in the thread, in one transaction that is rolled back if it raises.

        One that only reads waits for nobody.
        """

        def run() -> T:
            db = self._open()
            with _transaction(db, "DEFERRED" if reads_only else "IMMEDIATE"):
                return job(db)

        return self._executor.submit(run)

    async def read(self, job: Job[T]) -> T:
        """`run` for a job that only reads."""
        return await asyncio.wrap_future(self.submit(job, reads_only=True))

    async def run(self, job: Job[T]) -> T:
        """`submit`, awaited. A job whose awaiter is cancelled runs nevertheless.

        Raises:
            sqlite3.Error: The file cannot be used, or another process kept it too long.
            ConfigurationError: It is not of this program.
        """
        return await asyncio.wrap_future(self.submit(job))

    def close(self) -> None:
        """Finish what was submitted, and close. Idempotent; blocks."""
        self._executor.shutdown()
        if self._db is not None:
            self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            db = sqlite3.connect(
                self.path, timeout=self._busy_s, isolation_level=None, check_same_thread=False
            )
            try:
                _prepare(db, durable=self._durable)
            except (sqlite3.Error, ConfigurationError):
                db.close()
                raise
            self._db = db
        return self._db


def _prepare(db: sqlite3.Connection, *, durable: bool) -> None:
    ((version,),) = db.execute("PRAGMA user_version")
    if version not in (0, _VERSION):
        raise ConfigurationError(
            f"{FILE_NAME} has version {version}, this program reads {_VERSION}"
        )
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    if version == 0:
        db.executescript(_SCHEMA)


@contextmanager
def _transaction(db: sqlite3.Connection, kind: str) -> Iterator[None]:
    """All or nothing; `sqlite3`'s own context does not begin one."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")

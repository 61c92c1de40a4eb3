"""The keys of a server: which are let in, and how they are made, changed and replaced.

What is stored of a secret is HMAC-SHA256(pepper, key) in `access.sqlite`; the pepper is a file
beside it, or comes from where the settings say, so that neither alone says anything about a key.
Who was let in is remembered for `CACHE_S`, the longest time that a revoked key goes on working.
"""

import hmac
import secrets
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from provider_core.access import key_rows
from provider_core.access.api_key import ApiKey, timestamp
from provider_core.access.database import FILE_NAME, AccessDatabase
from provider_core.access.first_format import import_keys
from provider_core.access.key_format import MAX_KEY_BYTES, digest_of, is_mistyped, mint
from provider_core.access.pepper import Pepper
from provider_core.errors import AuthenticationFailed, ConfigurationError, Unavailable
from provider_core.interfaces import Clock
from provider_core.types import Principal

log = structlog.get_logger()

CACHE_S = 20.0
"""A change that another process makes is seen after so many seconds at the latest."""

DEFAULT_OVERLAP_S = 24 * 3600.0
"""How long the old secret of a rotated key lives on."""

_MAX_CACHED = 10_000
_RETRY_S = 5.0

FIXED = ApiKey(id="key_fixed", label="PROVIDER_API_KEY")
"""`PROVIDER_API_KEY`: it has no random public id, and its own hash would differ between replicas
with a pepper each, so it has one name everywhere."""
_NOBODY = bytes(32)  # a digest that no key has


@dataclass(frozen=True, slots=True)
class _Known:
    """Who was let in, until when that holds."""

    digest: bytes
    key: ApiKey
    principal: Principal
    until_s: float  # monotonic
    secret_ends: str | None = None


class KeyStore:
    """All keys of one server: those of the settings in memory, the others in the file.

    Args:
        database: Where keys are kept.
        pepper: Of the keyed hash.
        clock: The time.

    Attributes:
        internal_secret: Of this process alone: it is let in as `FIXED` is, for as long as that is.
    """

    def __init__(self, database: AccessDatabase, pepper: Pepper, clock: Clock = time) -> None:
        self.internal_secret = secrets.token_urlsafe()
        self._database = database
        self._pepper = pepper
        self._clock = clock
        self._fixed_pepper = secrets.token_bytes(32)
        self._fixed: dict[bytes, _Known] = {}
        self._cache: dict[bytes, _Known] = {}

    def replace_fixed(
        self, given: Iterable[tuple[str, ApiKey]], unread: Iterable[ApiKey] = ()
    ) -> bool:
        """Accept these keys of the settings, in memory only, and no others of them.

        Args:
            given: What clients present, and whose it is.
            unread: Keys of which a secret could not be read: what was accepted of them still is.

        Returns:
            Whether that changes anything.

        Raises:
            ConfigurationError: One is longer than `MAX_KEY_BYTES`; all stay as they were.
        """
        still = {key.id: key for key in unread}
        fixed = {
            digest: _Known(digest, key, key.principal, until_s=float("inf"))
            for digest, known in self._fixed.items()
            if (key := still.get(known.key.id))
        }
        for secret, key in given:
            presented = secret.strip()  # as every HTTP parser does to the header it comes back in
            if len(presented.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
                raise ConfigurationError(f"api_key is longer than {MAX_KEY_BYTES} bytes")
            accepted = (presented, self.internal_secret) if key == FIXED else (presented,)
            for each in accepted:
                digest = digest_of(each, self._fixed_pepper)
                fixed[digest] = _Known(digest, key, key.principal, until_s=float("inf"))
        is_changed = fixed != self._fixed
        self._fixed = fixed
        return is_changed

    async def authenticate(self, secret: str) -> Principal | None:
        """Say whose key this is, in a time that does not depend on how close a guess is.

        Args:
            secret: Anything a client sent.

        Returns:
            `None` for a key nobody knows.

        Raises:
            AuthenticationFailed: The key is known, and revoked, disabled or expired.
            Unavailable: The file cannot be read.
        """
        known = self._known_fixed(secret)
        if known is None:
            if is_mistyped(secret) or not self._database.exists():
                return None
            digest = digest_of(secret, self._pepper.load())
            known = self._cache.get(digest)
            if known is None or known.until_s <= self._clock.monotonic():
                known = await self._look_up(digest)
            if known is None or not hmac.compare_digest(known.digest, digest):
                return None
        now = timestamp(self._clock.time())
        if known.secret_ends is not None and known.secret_ends <= now:
            return None
        refusal = known.key.refusal(now)
        if refusal is not None:
            raise AuthenticationFailed(refusal, code="expired_api_key")
        return known.principal

    async def create(self, **facts: Any) -> tuple[ApiKey, str]:
        """Make a key.

        Args:
            facts: Of `ApiKey`, by its fields' names.

        Returns:
            The key, and its secret, which cannot be had again.
        """
        minted = mint()
        key = ApiKey(id=minted.public_id, created_at=self._now(), **facts)
        digest = digest_of(minted.key, self._pepper.load_or_make())
        await self._database.run(partial(key_rows.insert, key=key, digest=digest))
        return key, minted.key

    async def find(self, name: str, account_id: str | None = None) -> ApiKey | None:
        """A key by its id or hash; only of an account, if one is given."""
        if not self._database.exists():
            return None
        return await self._database.read(partial(key_rows.find, name=name, account_id=account_id))

    async def select(self, account_id: str | None = None) -> list[ApiKey]:
        """Every key, revoked ones too, the newest first; only of an account, if one is given."""
        if not self._database.exists():
            return []
        return await self._database.read(partial(key_rows.select, account_id=account_id))

    async def update(self, key: ApiKey, **changes: Any) -> ApiKey | None:
        """Change facts of a key; whatever others change of it meanwhile stays changed.

        Args:
            key: Which.
            changes: By the names of `ApiKey`'s fields.

        Returns:
            The key as it is then; `None` if it is revoked, which nothing changes.
        """
        job = partial(
            key_rows.update, key_id=key.id, changes={"updated_at": self._now(), **changes}
        )
        changed = await self._database.run(job)
        self._cache.clear()
        return changed

    async def revoke(self, key: ApiKey) -> ApiKey:
        """Refuse a key for good, at once in this process and after `CACHE_S` in others."""
        revoked = await self.update(key, revoked_at=self._now())
        return revoked or await self.find(key.id) or key

    async def rotate(self, key: ApiKey, overlap_s: float = DEFAULT_OVERLAP_S) -> str:
        """Give a key another secret; the one before goes on working for a while.

        Returns:
            The new secret, which cannot be had again.
        """
        minted = mint(key.id)
        now_s = self._clock.time()
        job = partial(
            key_rows.add_secret,
            key_id=key.id,
            digest=digest_of(minted.key, self._pepper.load_or_make()),
            now=timestamp(now_s),
            others_end=timestamp(now_s + overlap_s),
        )
        await self._database.run(job)
        self._cache.clear()
        return minted.key

    def close(self) -> None:
        """Close the file. Idempotent; blocks."""
        self._database.close()

    def _known_fixed(self, secret: str) -> _Known | None:
        digest = digest_of(secret, self._fixed_pepper)
        known = self._fixed.get(digest)
        stored = _NOBODY if known is None else known.digest
        return known if hmac.compare_digest(stored, digest) else None

    async def _look_up(self, digest: bytes) -> _Known | None:
        now = self._now()
        try:
            found = await self._database.read(
                partial(key_rows.find_by_digest, digest=digest, now=now)
            )
        except (sqlite3.Error, OSError):
            log.exception("keys.unreadable")
            raise Unavailable(
                "API keys cannot be checked now", code="keys_unavailable", retry_after_s=_RETRY_S
            ) from None
        if found is None:
            self._cache.pop(digest, None)
            return None
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        key, secret_ends = found
        known = _Known(digest, key, key.principal, self._clock.monotonic() + CACHE_S, secret_ends)
        self._cache[digest] = known
        return known

    def _now(self) -> str:
        return timestamp(self._clock.time())


def load_or_mint(
    data_dir: Path,
    fixed_key: str | None,
    *,
    fixed: Iterable[tuple[str, ApiKey]] = (),
    pepper: bytes | None = None,
    database: AccessDatabase | None = None,
) -> tuple[KeyStore, str | None]:
    """Open the keys of a server, minting the first one if there is none at all.

    Args:
        data_dir: Created (mode 0700) when a key must be stored. With a fixed key nothing is
            written, so that a read-only file system can serve.
        fixed_key: Accepted beside the stored keys.
        fixed: Further ones, each with whose it is.
        pepper: Of the stored keys; by default the one in `data_dir`.
        database: The folder's, if it is open already.

    Returns:
        The store, and the secret of a key if one was minted just now.

    Raises:
        ConfigurationError: The folder's files are damaged or cannot be written.
    """
    database = database or AccessDatabase(data_dir / FILE_NAME)
    pepper_of = Pepper(data_dir / "pepper", pepper)
    store = KeyStore(database, pepper_of)
    given = [*fixed] if fixed_key is None else [*fixed, (fixed_key, FIXED)]
    store.replace_fixed(given)
    try:
        import_keys(data_dir, database)
        if database.exists() and database.submit(key_rows.select, reads_only=True).result():
            pepper_of.load()
            return store, None
        if given:
            return store, None
        minted = mint()
        first = ApiKey(id=minted.public_id, label="first", created_at=timestamp(time.time()))
        digest = digest_of(minted.key, pepper_of.load_or_make())
        database.submit(partial(key_rows.insert, key=first, digest=digest)).result()
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(
            f"data_dir {data_dir} cannot store a key ({error}); set api_key instead"
        ) from error
    return store, minted.key

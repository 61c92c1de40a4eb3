"""Keys and their secrets as rows; for jobs of `AccessDatabase`."""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from provider_core.access.api_key import ApiKey

MAX_LIVE_SECRETS = 2

_NAMES = tuple(field.name for field in fields(ApiKey))
_COLUMNS = ", ".join(_NAMES)
_INSERT_DIGEST = "INSERT OR IGNORE INTO secrets VALUES (?, ?, ?, NULL)"


def insert(db: sqlite3.Connection, key: ApiKey, digest: bytes) -> bool:
    """Add a key and its first secret; `False` if it is there already."""
    row = {**asdict(key), "hash": key.hash}
    marks = ", ".join(f":{name}" for name in row)
    added = db.execute(
        f"INSERT OR IGNORE INTO keys ({', '.join(row)}) VALUES ({marks})",  # noqa: S608 - our names
        row,
    )
    if added.rowcount == 0:
        return False
    db.execute(_INSERT_DIGEST, (digest, key.id, key.created_at))
    return True


def find_by_digest(
    db: sqlite3.Connection, digest: bytes, now: str
) -> tuple[ApiKey, str | None] | None:
    """The key that a secret belongs to, and when that secret ends."""
    secret = db.execute(
        "SELECT key_id, expires_at FROM secrets WHERE digest = ?", (digest,)
    ).fetchone()
    if secret is None:
        return None
    key_id, expires_at = secret
    key = find(db, key_id)
    if key is None or (expires_at is not None and expires_at <= now):
        return None
    return key, expires_at


def find(db: sqlite3.Connection, name: str, account_id: str | None = None) -> ApiKey | None:
    """A key by its id or hash; only of an account, if one is given."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM keys WHERE (id = :name OR hash = :name)"  # noqa: S608 - our names
        " AND (:account IS NULL OR account_id = :account)",
        {"name": name, "account": account_id},
    ).fetchone()
    return None if row is None else _key(row)


def select(db: sqlite3.Connection, account_id: str | None = None) -> list[ApiKey]:
    """Every key, revoked ones too, the newest first; only of an account, if one is given."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM keys WHERE (:account IS NULL OR account_id = :account)"  # noqa: S608
        " ORDER BY created_at DESC, id",
        {"account": account_id},
    )
    return [_key(row) for row in rows]


def update(db: sqlite3.Connection, key_id: str, changes: Mapping[str, Any]) -> ApiKey | None:
    """Store what changes of a key, and nothing else; `None` if it was revoked meanwhile."""
    unknown = changes.keys() - _NAMES
    if unknown:
        raise ValueError(f"no columns of a key: {sorted(unknown)}")
    pairs = ", ".join(f"{name} = :{name}" for name in changes)
    updated = db.execute(
        f"UPDATE keys SET {pairs} WHERE id = :id AND revoked_at IS NULL",  # noqa: S608 - our names
        {**changes, "id": key_id},
    )
    return find(db, key_id) if updated.rowcount else None


def add_secret(
    db: sqlite3.Connection, key_id: str, digest: bytes, *, now: str, others_end: str
) -> None:
    """Give a key another secret. Of the others the newest lives until a time, the rest ends now."""
    live: Iterable[Any] = db.execute(
        "SELECT digest FROM secrets WHERE key_id = ? AND (expires_at IS NULL OR expires_at > ?)"
        " ORDER BY created_at DESC, expires_at IS NULL DESC",
        (key_id, now),
    ).fetchall()
    for index, (other,) in enumerate(live):
        end = others_end if index < MAX_LIVE_SECRETS - 1 else now
        db.execute(
            "UPDATE secrets SET expires_at = min(coalesce(expires_at, :end), :end)"
            " WHERE digest = :digest",
            {"end": end, "digest": other},
        )
    db.execute(_INSERT_DIGEST, (digest, key_id, now))


def _key(row: Iterable[Any]) -> ApiKey:
    values = dict(zip(_NAMES, row, strict=True))
    return ApiKey(**{**values, "disabled": bool(values["disabled"])})

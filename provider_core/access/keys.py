"""API keys: minted at random, shown once, stored as keyed hashes.

A key is ``sk-pc-<public id>-<secret>``. The prefix lets a secret scanner find leaked keys
(`KEY_PATTERN`), the public id names the key in logs and bills, and the secret's 40 characters are
238 bits. The data folder holds ``keys.json`` with HMAC-SHA256(pepper, key), and ``pepper``, so that
neither file alone says anything about a key. Both are mode 0600.
"""

import hashlib
import hmac
import json
import os
import secrets
import string
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from provider_core.errors import ConfigurationError
from provider_core.types import Principal

KEY_PATTERN = r"sk-pc-[a-z0-9]{12}-[A-Za-z0-9]{40}"
"""Regular expression of a minted key, for secret scanners."""

MAX_KEY_BYTES = 512
"""No key is longer, so that judging a megabyte costs no more than judging a key."""

_FILE_VERSION = 1
_PEPPER_BYTES = 32
_ID_ALPHABET = string.ascii_lowercase + string.digits
_SECRET_ALPHABET = string.ascii_letters + string.digits
_FIXED_KEY_ID = "key_fixed"
_NOBODY = bytes(hashlib.sha256().digest_size)  # a digest that no key has


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """What is kept of a key: nothing that could be presented as one.

    Attributes:
        id: Public, `key_...`; named in logs and bills.
        digest: Hexadecimal HMAC-SHA256 of the whole key under the store's pepper.
        label: A name for people.
        account_id: Owner, if any.
        created_at: RFC 3339.
    """

    id: str
    digest: str
    label: str = ""
    account_id: str | None = None
    created_at: str = ""


class KeyStore:
    """The keys of one server, in memory, with a file behind them or none.

    Args:
        pepper: Secret of the keyed hash.
        keys: Keys that exist already.
        path: Where `mint` writes; `None` keeps minted keys in memory only.
    """

    def __init__(
        self, pepper: bytes, keys: Iterable[StoredKey] = (), path: Path | None = None
    ) -> None:
        self._pepper = pepper
        self._path = path
        self._principals: dict[bytes, tuple[bytes, Principal]] = {}
        for key in keys:
            self._remember(key)

    @classmethod
    def load(cls, data_dir: Path) -> Self | None:
        """Read the keys of a data folder; `None` if it has none.

        Raises:
            ConfigurationError: The files are there and cannot be read.
        """
        path = data_dir / "keys.json"
        try:
            if not path.exists():
                return None
            return cls(_read_pepper(data_dir / "pepper"), _read(path), path)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(
                f"{path} or the pepper beside it is missing, unreadable or damaged"
            ) from error

    def __len__(self) -> int:
        return len(self._principals)

    def authenticate(self, key: str) -> Principal | None:
        """Say whose key this is, in a time that does not depend on how close a guess is.

        Args:
            key: Anything a client sent.

        Returns:
            `None` for a key nobody knows.
        """
        digest = self._digest(key)
        known, principal = self._principals.get(digest, (_NOBODY, None))
        return principal if hmac.compare_digest(known, digest) else None

    def mint(self, *, label: str = "", account_id: str | None = None) -> str:
        """Make a key and store its hash.

        Returns:
            The key; it cannot be had again.
        """
        public_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(12))
        secret = "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(40))
        key = f"sk-pc-{public_id}-{secret}"
        stored = StoredKey(
            id=f"key_{public_id}",
            digest=self._digest(key).hex(),
            label=label,
            account_id=account_id,
            created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        )
        if self._path is not None:
            others = _read(self._path) if self._path.exists() else []
            _replace(self._path, _document([*others, stored]))
        self._remember(stored)
        return key

    def add_fixed(self, key: str) -> None:
        """Accept a key from the settings, in memory only.

        It has no random public id, and its own hash would differ between replicas with a pepper
        each, so it is `key_fixed` everywhere.

        Raises:
            ConfigurationError: It is longer than `MAX_KEY_BYTES`.
        """
        key = key.strip()  # as every HTTP parser does to the header it comes back in
        if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
            raise ConfigurationError(f"api_key is longer than {MAX_KEY_BYTES} bytes")
        self._remember(
            StoredKey(id=_FIXED_KEY_ID, digest=self._digest(key).hex(), label="PROVIDER_API_KEY")
        )

    def _remember(self, key: StoredKey) -> None:
        digest = bytes.fromhex(key.digest)
        principal = Principal(api_key_id=key.id, account_id=key.account_id, label=key.label)
        self._principals[digest] = (digest, principal)

    def _digest(self, key: str) -> bytes:
        # One byte beyond the limit is kept, so that an over-long key equals no stored one.
        raw = key[: MAX_KEY_BYTES + 1].encode("utf-8", "surrogatepass")[: MAX_KEY_BYTES + 1]
        return hmac.digest(self._pepper, raw, "sha256")


def load_or_mint(data_dir: Path, fixed_key: str | None) -> tuple[KeyStore, str | None]:
    """Open the keys of a server, minting the first one if there is none at all.

    Args:
        data_dir: Created (mode 0700) when a key must be stored. With a fixed key nothing is
            written, so that a read-only file system can serve.
        fixed_key: Accepted beside the stored keys.

    Returns:
        The store, and the minted key if one was minted just now.

    Raises:
        ConfigurationError: The folder's files are damaged or cannot be written.
    """
    store = KeyStore.load(data_dir)
    if fixed_key is not None:
        if store is None:
            store = KeyStore(secrets.token_bytes(_PEPPER_BYTES))
        store.add_fixed(fixed_key)
        return store, None
    if store is not None and len(store) > 0:
        return store, None
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Of two servers that start at once on one folder both use the pepper of the first.
        _create_unless_there(data_dir / "pepper", secrets.token_bytes(_PEPPER_BYTES))
        store = KeyStore(_read_pepper(data_dir / "pepper"), path=data_dir / "keys.json")
        return store, store.mint(label="first")
    except OSError as error:
        raise ConfigurationError(
            f"data_dir {data_dir} cannot store a key ({error.strerror}); set api_key instead"
        ) from error


def _read_pepper(path: Path) -> bytes:
    pepper = path.read_bytes()
    if len(pepper) != _PEPPER_BYTES:
        raise ConfigurationError(f"{path} must hold {_PEPPER_BYTES} bytes, not {len(pepper)}")
    return pepper


def _read(path: Path) -> list[StoredKey]:
    document = json.loads(path.read_bytes())
    if document["version"] != _FILE_VERSION:
        raise ConfigurationError(
            f"{path} has version {document['version']}, this program reads {_FILE_VERSION}"
        )
    return [StoredKey(**entry) for entry in document["keys"]]


def _document(keys: Iterable[StoredKey]) -> bytes:
    document = {"version": _FILE_VERSION, "keys": [asdict(key) for key in keys]}
    return json.dumps(document, indent=1).encode() + b"\n"


def _create_unless_there(path: Path, content: bytes) -> None:
    """Create a file, whole or not at all."""
    draft = _write_draft(path, content)
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links, as some mounted volumes are
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    """Put new content in a file, whole or not at all."""
    _write_draft(path, content).replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_draft(path: Path, content: bytes) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return draft

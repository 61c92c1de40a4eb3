"""The keys of a server, from wherever the settings say they are."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from provider_core import hookspecs
from provider_core.access.api_key import ApiKey
from provider_core.access.database import FILE_NAME, AccessDatabase
from provider_core.access.key_file import read_keys
from provider_core.access.key_format import MAX_KEY_BYTES
from provider_core.access.keys import FIXED, KeyStore, load_or_mint
from provider_core.access.pepper import Pepper
from provider_core.errors import ConfigurationError, SecretNotFound
from provider_core.plugins import PluginManager
from provider_core.settings import Settings

log = structlog.get_logger()

REREAD_S = 20.0
"""Between two looks at the secrets that the configuration names; as long as stored keys are
remembered, so that every change of a key is seen within half a minute."""

_MIN_CHARACTERS = 8  # of a key
_URI = re.compile(r"[a-z][a-z0-9+-]*://")


def is_uri(api_key: str) -> bool:
    """Whether `PROVIDER_API_KEY` only names the key."""
    return _URI.match(api_key) is not None


def open_keys(settings: Settings, plugins: PluginManager) -> tuple[KeyStore, str | None]:
    """Open the data folder's keys, beside those of the settings and of `access.keys_file`.

    Returns:
        The store, and the secret of a key if the first one was minted just now.

    Raises:
        ConfigurationError: A key, the pepper or a file cannot be had.
    """
    given = read_given_keys(settings, plugins)
    if given.errors:
        raise given.errors[0]
    pepper = _pepper(settings, plugins)
    return load_or_mint(settings.data_dir, None, fixed=given.secrets, pepper=pepper)


@dataclass(frozen=True, slots=True)
class GivenKeys:
    """What the settings and `access.keys_file` name.

    Attributes:
        secrets: Those that are there, each with its key, of which one may have two.
        unread: Keys of which a secret may be there, and could not be read.
        errors: Why one is not among the secrets.
    """

    secrets: list[tuple[str, ApiKey]] = field(default_factory=list)
    unread: list[ApiKey] = field(default_factory=list)
    errors: list[ConfigurationError] = field(default_factory=list)


def read_given_keys(settings: Settings, plugins: PluginManager) -> GivenKeys:
    """Read every secret that the settings and `access.keys_file` name, as it is now.

    Raises:
        ConfigurationError: The file cannot be had.
    """
    given = GivenKeys()
    named: list[tuple[str, ApiKey]] = []
    source = settings.access.keys_file
    if source is not None:
        for uris, key in read_keys(_read_document(source, plugins), str(source)):
            named += [(uri, key) for uri in uris]
    api_key = settings.api_key
    if api_key is not None and is_uri(api_key):
        named.append((api_key, FIXED))
    elif api_key is not None:
        given.secrets.append((api_key, FIXED))
    for uri, key in named:
        try:
            given.secrets.append((_text(uri, plugins), key))
        except ConfigurationError as error:
            given.errors.append(error)
            if not isinstance(error, SecretNotFound):
                given.unread.append(key)
    return given


@asynccontextmanager
async def following_given_keys(
    store: KeyStore | None, settings: Settings, plugins: PluginManager
) -> AsyncIterator[None]:
    """Let in what `read_given_keys` says, and nothing else of it, for as long as this is open.

    A secret that cannot be read leaves its key as it is: a secrets manager that is down locks
    nobody out. One that is not there, or not in the file, is let in no more. A file that cannot be
    read leaves all keys as they are.
    """
    names_uri = settings.api_key is not None and is_uri(settings.api_key)
    if store is None or (settings.access.keys_file is None and not names_uri):
        yield
        return
    task = asyncio.create_task(_follow(store, settings, plugins))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _follow(store: KeyStore, settings: Settings, plugins: PluginManager) -> None:
    while True:
        await asyncio.sleep(REREAD_S)
        try:
            given = await asyncio.to_thread(read_given_keys, settings, plugins)
            for error in given.errors:
                log.warning("keys.unreadable", error=error.message)
            if store.replace_fixed(given.secrets, given.unread):
                log.info("keys.replaced", num_keys=len(given.secrets))
        except ConfigurationError as error:
            log.warning("keys.unreadable", error=error.message)
        except Exception:  # whatever it is, the keys must be looked at again
            log.exception("keys.unreadable")


def open_stored_keys(settings: Settings, plugins: PluginManager) -> KeyStore:
    """Open the data folder's keys alone, to manage them; what is changed is on disk at once.

    Raises:
        ConfigurationError: The pepper cannot be had.
    """
    database = AccessDatabase(settings.data_dir / FILE_NAME, durable=True)
    pepper = Pepper(settings.data_dir / "pepper", _pepper(settings, plugins))
    return KeyStore(database, pepper)


def _pepper(settings: Settings, plugins: PluginManager) -> bytes | None:
    uri = settings.access.pepper
    return None if uri is None else _load(uri, plugins)


def _read_document(source: str | Path, plugins: PluginManager) -> bytes:
    if isinstance(source, str):
        return _load(source, plugins)
    try:
        return source.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read the keys in {source}: {error.strerror}") from error


def _text(uri: str, plugins: PluginManager) -> str:
    try:
        text = _load(uri, plugins).decode().strip()
    except UnicodeDecodeError:
        text = ""
    if len(text) < _MIN_CHARACTERS or len(text.encode()) > MAX_KEY_BYTES:
        raise SecretNotFound(
            f"{uri}: a key must be text of {_MIN_CHARACTERS} characters at least, and of "
            f"{MAX_KEY_BYTES} bytes at most"
        )
    return text


def _load(uri: str, plugins: PluginManager) -> bytes:
    try:
        secret = plugins.first(hookspecs.load_secret, uri=uri)
    except ConfigurationError:
        raise
    except Exception as error:  # a plugin's own, whose text might quote the secret
        raise ConfigurationError(f"{uri}: its plugin failed: {type(error).__name__}") from error
    if secret is None:
        raise ConfigurationError(f"{uri}: no plugin reads secrets of this scheme")
    return secret

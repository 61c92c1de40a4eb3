"""The keys of a server, from wherever the settings say they are."""

import re

from provider_core import hookspecs
from provider_core.access.api_key import ApiKey
from provider_core.access.database import FILE_NAME, AccessDatabase
from provider_core.access.key_file import read_keys
from provider_core.access.keys import KeyStore, load_or_mint
from provider_core.access.pepper import Pepper
from provider_core.errors import ConfigurationError
from provider_core.plugins import PluginManager
from provider_core.settings import Settings

_URI = re.compile(r"[a-z][a-z0-9+-]*://")


def open_keys(settings: Settings, plugins: PluginManager) -> tuple[KeyStore, str | None]:
    """Open the data folder's keys, beside those of the settings and of `access.keys_file`.

    Returns:
        The store, and the secret of a key if the first one was minted just now.

    Raises:
        ConfigurationError: A key, the pepper or a file cannot be had.
    """
    fixed: list[tuple[str, ApiKey]] = []
    if settings.access.keys_file is not None:
        for uris, key in read_keys(settings.access.keys_file):
            fixed += [(_text(uri, plugins), key) for uri in uris]
    api_key = settings.api_key
    if api_key is not None and _URI.match(api_key):
        api_key = _text(api_key, plugins)
    pepper = _pepper(settings, plugins)
    return load_or_mint(settings.data_dir, api_key, fixed=fixed, pepper=pepper)


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


def _text(uri: str, plugins: PluginManager) -> str:
    try:
        text = _load(uri, plugins).decode().strip()
    except UnicodeDecodeError:
        text = ""
    if len(text) < 8:
        raise ConfigurationError(f"{uri}: a key must be text of 8 characters at least")
    return text


def _load(uri: str, plugins: PluginManager) -> bytes:
    secret = plugins.first(hookspecs.load_secret, uri=uri)
    if secret is None:
        raise ConfigurationError(f"{uri}: no plugin reads secrets of this scheme")
    return secret

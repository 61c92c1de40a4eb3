"""Who is calling: API keys, where they are stored and where clients put them."""

from provider_core.access.credentials import QUERY_PARAMETER, extract_key
from provider_core.access.keys import KEY_PATTERN, KeyStore, StoredKey, load_or_mint
from provider_core.access.plugin import ApiKeyPlugin

__all__ = [
    "KEY_PATTERN",
    "QUERY_PARAMETER",
    "ApiKeyPlugin",
    "KeyStore",
    "StoredKey",
    "extract_key",
    "load_or_mint",
]

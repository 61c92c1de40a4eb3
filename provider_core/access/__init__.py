"""Who is calling, and what they may use: API keys, rate limits, credits."""

from provider_core.access.api_key import ApiKey
from provider_core.access.credentials import QUERY_PARAMETER, extract_key
from provider_core.access.database import AccessDatabase
from provider_core.access.key_format import KEY_PATTERN
from provider_core.access.keys import KeyStore, load_or_mint
from provider_core.access.plugin import ApiKeyPlugin

__all__ = [
    "KEY_PATTERN",
    "QUERY_PARAMETER",
    "AccessDatabase",
    "ApiKey",
    "ApiKeyPlugin",
    "KeyStore",
    "extract_key",
    "load_or_mint",
]

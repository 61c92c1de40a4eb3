"""API keys as a plugin: the `authenticate` that is asked when no other plugin knew the caller."""

from collections.abc import Awaitable, Mapping

import pluggy

from provider_core.access.credentials import extract_key
from provider_core.access.keys import KeyStore
from provider_core.errors import AuthenticationFailed
from provider_core.types import Principal

_hookimpl = pluggy.HookimplMarker("provider_core")


class ApiKeyPlugin:
    """Lets in whoever presents a key of a store.

    Args:
        store: The keys.
    """

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    @_hookimpl(trylast=True)
    def authenticate(
        self, headers: Mapping[str, str], query: Mapping[str, str]
    ) -> Awaitable[Principal] | None:
        """Answer for a known key, refuse an unknown one, decline when there is none."""
        key = extract_key(headers, query)
        return None if key is None else self._check(key)

    async def _check(self, key: str) -> Principal:
        principal = await self._store.authenticate(key)
        if principal is None:
            raise AuthenticationFailed("nobody has this key")
        return principal

"""Who is calling: asks the `authenticate` hook, before a body is read."""

import inspect
from collections.abc import Mapping
from time import monotonic

from aiohttp import web

from provider_core import hookspecs
from provider_core.access.limit_store import FailedAttempts
from provider_core.errors import AuthenticationFailed
from provider_core.plugins import PluginManager
from provider_core.server.call import ANONYMOUS
from provider_core.server.edge import CALL
from provider_core.settings import Settings
from provider_core.types import Principal


class Authenticator:
    """Turns a request's credentials into a `Principal`."""

    def __init__(self, settings: Settings, plugins: PluginManager) -> None:
        self._required = settings.access.require_key
        self._plugins = plugins
        self._failures = FailedAttempts(settings.access.failed_keys_per_minute)
        self._address_header = settings.server.client_address_header

    async def __call__(self, request: web.Request) -> Principal:
        """Authenticate by the matched route's request, never by a URL rebuilt from headers.

        Raises:
            AuthenticationFailed: No credentials, or none that anybody knows.
            RateLimited: The same, once too often from one address.
        """
        if not self._required:
            return ANONYMOUS
        # A key in a URL ends up in logs, if not in ours; only Google's REST clients send one.
        query = request.query if request[CALL].dialect == "google" else {}
        try:
            return await self._ask(request.headers, query)
        except AuthenticationFailed:
            self._failures.count(self._address_of(request), monotonic())
            raise

    def _address_of(self, request: web.Request) -> str:
        """The client's address: what the proxy in front appended last, or who is connected.

        What stands before that in the header is what the client says.
        """
        told = request.headers.getall(self._address_header, []) if self._address_header else []
        return told[-1].rpartition(",")[2].strip() if told else request.remote or ""

    async def _ask(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Principal:
        answer = self._plugins.first(hookspecs.authenticate, headers=headers, query=query)
        if inspect.isawaitable(answer):
            answer = await answer
        if answer is None:
            raise AuthenticationFailed(
                "missing or unknown API key; send it as `Authorization: Bearer <key>`"
            )
        return answer

"""Fetching images that clients name, without becoming their way into our network.

A name is resolved once, every address it has must be on the open internet, and the connection goes
to the addresses that were checked. Redirects are followed by hand, each checked like the first.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from provider_core.errors import InvalidRequest
from provider_core.images.sources import IPAddress, check_url, fetch_failed, is_public
from provider_core.settings import ImageSettings

MAX_REDIRECTS = 3
MAX_LOOKUPS = 8  # of names at a time
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {
    "Accept": "image/png, image/jpeg, image/gif, image/webp",
    "Accept-Encoding": "identity",
    "User-Agent": "provider-core",
}


class SystemResolver(AbstractResolver):
    """Asks the system, in threads of its own: names that take long hold up images only."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(MAX_LOOKUPS, thread_name_prefix="image-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a name.

        Raises:
            OSError: It has no address.
        """
        look_up = partial(socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._executor, look_up)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Wait for nobody."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class CheckedResolver(AbstractResolver):
    """Resolves names whose every address may be connected to.

    Args:
        is_allowed: Judges an address.
        resolver: Finds them; closed with this one.
    """

    def __init__(self, is_allowed: Callable[[IPAddress], bool], resolver: AbstractResolver) -> None:
        self._is_allowed = is_allowed
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a name.

        Raises:
            OSError: It has no address, or one that is not allowed.
        """
        found = await self._resolver.resolve(host, port, family)
        for each in found:
            if not self._is_allowed(ipaddress.ip_address(each["host"].partition("%")[0])):
                raise OSError("an address is not allowed")
        return found

    async def close(self) -> None:
        """Let the inner one go."""
        await self._resolver.close()


class ImageFetcher:
    """Fetches bytes from addresses of clients. Close it.

    Args:
        settings: Limits.
        is_allowed: Judges each address that would be connected to.
        schemes: Of addresses.
        resolver: Finds a name's addresses; by default it asks the system.
    """

    def __init__(
        self,
        settings: ImageSettings,
        *,
        is_allowed: Callable[[IPAddress], bool] = is_public,
        schemes: Sequence[str] = ("https",),
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._settings = settings
        self._is_allowed = is_allowed
        self._schemes = frozenset(schemes)
        self._resolver = CheckedResolver(is_allowed, resolver or SystemResolver())
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, url: str, *, param: str) -> bytes:
        """Fetch what an address holds.

        Args:
            url: As the client wrote it.
            param: Where, for errors.

        Raises:
            InvalidRequest: It may not be fetched, or could not be; the message does not say which
                of many reasons it was, because that would describe our network.
        """
        if not self._settings.fetch:
            raise fetch_failed(param, "must be a data URL: this server fetches no addresses")
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._follow(check_url(url, param=param, schemes=self._schemes), param)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            raise fetch_failed(param) from None

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        await self._resolver.close()

    async def _follow(self, url: URL, param: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._get(url, param)
            if isinstance(answer, bytes):
                return answer
            url = answer
        raise fetch_failed(param)

    async def _get(self, url: URL, param: str) -> bytes | URL:
        """One hop: the body, or where to go next."""
        self._check_literal(url, param)
        async with self._open_session().get(url, allow_redirects=False, headers=_HEADERS) as answer:
            if answer.status in _REDIRECTS:
                target = url.join(URL(answer.headers.get("Location", "")))
                return check_url(str(target), param=param, schemes=self._schemes)
            if answer.status != 200 or answer.headers.get("Content-Encoding", "identity") not in {
                "",
                "identity",
            }:
                raise fetch_failed(param)
            return await self._read(answer, param)

    async def _read(self, answer: aiohttp.ClientResponse, param: str) -> bytes:
        limit = self._settings.max_bytes
        body = bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > limit:
                raise InvalidRequest(
                    f"{param} exceeds the limit of {limit} bytes",
                    param=param,
                    code="image_fetch_failed",
                )
        return bytes(body)

    def _check_literal(self, url: URL, param: str) -> None:
        """Check an address that is written as numbers: no resolver sees it."""
        try:
            address = ipaddress.ip_address(url.host or "")
        except ValueError:
            return  # a name
        if not self._is_allowed(address):
            raise fetch_failed(param)

    def _open_session(self) -> aiohttp.ClientSession:
        """One session for all, made when it is first needed; no cookies, no cache of names."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=self._resolver,
                    use_dns_cache=False,
                    force_close=True,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

"""Fetching images from a server that does all that a bad one could."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from provider_core.errors import InvalidRequest
from provider_core.images.sources import IPAddress
from provider_core.server.image_fetch import MAX_REDIRECTS, ImageFetcher
from provider_core.settings import ImageSettings

PARAM = "messages[0].content[1]"
LOOPBACK = ipaddress.ip_address("127.0.0.1")
SETTINGS = ImageSettings(max_bytes=4096, timeout_s=2)


@dataclass(slots=True)
class FakeResolver(AbstractResolver):
    """Answers with what a test says, and counts how often it was asked."""

    addresses: dict[str, list[str]]
    asked: list[str] = field(default_factory=list)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look a name up."""
        self.asked.append(host)
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in self.addresses[host]
        ]

    async def close(self) -> None:
        """Nothing to close."""


@dataclass(slots=True)
class Site:
    """A web server of strangers."""

    port: int
    seen: list[web.Request]

    def url(self, path: str, host: str = "site.example") -> str:
        """An address on it."""
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """Running on loopback."""
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        path = request.path
        if path == "/image":
            return web.Response(body=b"image", headers={"Set-Cookie": "a=b"})
        if path.startswith("/hops/"):
            left = int(path.rpartition("/")[2])
            raise web.HTTPFound(f"/hops/{left - 1}" if left else "/image")
        if path == "/to":
            raise web.HTTPFound(request.query["url"])
        if path == "/gzip":
            return web.Response(body=b"bomb", headers={"Content-Encoding": "gzip"})
        if path == "/large":
            return web.Response(body=b"x" * 4097)
        if path == "/slow":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"x")
            await asyncio.Event().wait()
        raise web.HTTPNotFound

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    listening = web.TCPSite(runner, "127.0.0.1", 0)
    await listening.start()
    port = runner.addresses[0][1]
    try:
        yield Site(port, seen)
    finally:
        await runner.cleanup()


def allows_loopback(address: IPAddress) -> bool:
    """The test's site is on the open internet, and nothing else is."""
    return address == LOOPBACK


async def fetch(url: str, resolver: AbstractResolver, settings: ImageSettings = SETTINGS) -> bytes:
    """Fetch as a server would, over plain HTTP."""
    fetcher = ImageFetcher(
        settings, is_allowed=allows_loopback, schemes=("http",), resolver=resolver
    )
    try:
        return await fetcher.fetch(url, param=PARAM)
    finally:
        await fetcher.close()


def names(**more: list[str]) -> FakeResolver:
    """A resolver that knows the site."""
    return FakeResolver({"site.example": ["127.0.0.1"], **more})


async def test_v14_an_image_is_fetched_without_credentials(site: Site) -> None:
    """Its cookies are not kept, and it is told nothing of who asks."""
    fetcher = ImageFetcher(
        SETTINGS, is_allowed=allows_loopback, schemes=("http",), resolver=names()
    )
    for _ in range(2):
        assert await fetcher.fetch(site.url("/image"), param=PARAM) == b"image"
    await fetcher.close()
    for request in site.seen:
        assert request.headers.keys() <= {
            "Host",
            "Accept",
            "Accept-Encoding",
            "User-Agent",
            "Connection",
        }


async def test_v2_a_name_is_resolved_once_for_each_hop(site: Site) -> None:
    """What was checked is what is connected to: nobody asks again."""
    resolver = names()
    await fetch(site.url("/image"), resolver)
    assert resolver.asked == ["site.example"]


async def test_v1_one_forbidden_address_forbids_the_name(site: Site) -> None:
    """Or the next connection would try it."""
    resolver = names(two=["127.0.0.1", "10.0.0.1"])
    with pytest.raises(InvalidRequest) as caught:
        await fetch(site.url("/image", "two"), resolver)
    assert (caught.value.code, caught.value.param) == ("image_fetch_failed", PARAM)
    assert site.seen == []


@pytest.mark.parametrize("num_hops", [MAX_REDIRECTS - 1, MAX_REDIRECTS])
async def test_v2_redirects_are_counted(site: Site, num_hops: int) -> None:
    """`/hops/n` leads to the image over n more of its kind and one last step."""
    url = site.url(f"/hops/{num_hops}")
    if num_hops + 1 <= MAX_REDIRECTS:
        assert await fetch(url, names()) == b"image"
    else:
        with pytest.raises(InvalidRequest, match="could not be fetched"):
            await fetch(url, names())


@pytest.mark.parametrize(
    "target", ["http://private.example/", "http://10.0.0.1/", "file:///etc/passwd", "http://[::1]/"]
)
async def test_v2_redirects_are_checked_like_the_first(site: Site, target: str) -> None:
    """Names, numbers and schemes."""
    resolver = names(**{"private.example": ["192.168.0.1"]})
    with pytest.raises(InvalidRequest) as caught:
        await fetch(site.url(f"/to?url={target}"), resolver)
    assert caught.value.code == "image_fetch_failed"
    assert len(site.seen) == 1


@pytest.mark.parametrize("path", ["/missing", "/gzip", "/large", "/slow"])
async def test_v5_bad_answers_fail_alike(site: Site, path: str) -> None:
    """404, a compressed body, too many bytes, and bytes that do not come."""
    settings = ImageSettings(max_bytes=4096, timeout_s=0.2)
    with pytest.raises(InvalidRequest) as caught:
        await fetch(site.url(path), names(), settings)
    assert (caught.value.code, caught.value.param) == ("image_fetch_failed", PARAM)


@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f.1", "2130706433", "localhost", "[::1]", "0"])
async def test_v1_this_machine_is_not_the_internet(host: str) -> None:
    """With the rules and the system's resolver as they are served."""
    fetcher = ImageFetcher(SETTINGS)
    with pytest.raises(InvalidRequest) as caught:
        await fetcher.fetch(f"https://{host}/", param=PARAM)
    await fetcher.close()
    assert caught.value.message == f"{PARAM} could not be fetched"


async def test_fetching_can_be_switched_off() -> None:
    """Before the address is even read."""
    fetcher = ImageFetcher(ImageSettings(fetch=False))
    with pytest.raises(InvalidRequest, match="data URL"):
        await fetcher.fetch("https://example.com/", param=PARAM)

"""Plays a hosting platform: asks a server for its health, routes requests to it, and stops it.

`examine` raises `AssertionError` where a server does not fit the platform's contract.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import aiohttp

from provider_core.platforms import suggest_platform
from provider_core.settings import Settings
from tests.platform.contracts import Contract, Probe
from tests.platform.replicas import Replica
from tests.platform.talking_engine import TOKEN_S
from tests.serving import KEY
from tests.sse_checker import check_stream

_POLL_S = 0.01
_MARGIN_S = 10.0  # a deadline that is earlier than the platform's by more than this wastes time
_AUTHORIZATION = {"Authorization": f"Bearer {KEY}"}


def check_settings(name: str, contract: Contract, settings_for: Any) -> None:
    """What can be said without starting anything: where it listens, where it writes, who it is.

    Args:
        name: Of the platform.
        contract: What it does.
        settings_for: Gives the settings of a server, given the platform's variables.
    """
    assert settings_for({}).port == contract.default_port
    assert settings_for({}).server.probe_port in {None, contract.default_port}
    assert contract.forbidden_port != contract.default_port
    for place, variable in enumerate(contract.port_variables):
        told = {each: str(7000 + i) for i, each in enumerate(contract.port_variables) if i >= place}
        assert settings_for(told).port == 7000 + place, f"{variable} is not heard"
    settings: Settings = settings_for(contract.environment)
    assert settings.platform == name
    assert settings.limits.keepalive_timeout_s > contract.proxy_idle_s
    if contract.region is not None:
        assert settings.server.region == "local"
        assert settings_for({contract.region: "eu-1"}).server.region == "eu-1"
    if contract.writable is not None:
        assert str(settings.data_dir).startswith(f"{contract.writable}/")
    signs = {**contract.environment, "PATH": "/bin", "HOSTNAME": "h"}
    assert suggest_platform(signs) == (name if contract.environment else None)


async def examine(
    contract: Contract, replica: Replica, *, patience_s: float = 20, stream_s: float = 0.5
) -> None:
    """Run a server through its life: starting, ready, stopping.

    Args:
        contract: What the platform does.
        replica: The server, which has been started.
        patience_s: Until its socket must be open.
        stream_s: Duration of the stream that the stop finds.

    Raises:
        AssertionError: It does not do what the platform needs.
    """
    async with _Platform.of(contract, replica) as platform:
        await platform.until_open(patience_s)
        await platform.check_starting()
        replica.finish_loading()
        await platform.until_ready()
        await platform.check_requests()
        await platform.check_stop(stream_s)


@dataclass
class Stream:
    """An answer that was read to its end.

    Attributes:
        text: What it said.
        is_whole: Whether it ended as it should.
        generation_id: Its name in the usage lines.
        duration_s: From the request to the last byte.
    """

    text: str
    is_whole: bool
    error: Mapping[str, Any] | None
    generation_id: str
    duration_s: float


async def talk(
    session: aiohttp.ClientSession, url: str, num_tokens: int, begun: asyncio.Event | None = None
) -> Stream:
    """Have the model talk, as a client of the platform.

    Raises:
        aiohttp.ClientError: It could not be reached, or was cut off.
    """
    body = {"model": "test-model", "prompt": "x", "max_tokens": num_tokens, "stream": True}
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    async with session.post(f"{url}/v1/completions", json=body, headers=_AUTHORIZATION) as reply:
        if reply.status != 200:
            raise aiohttp.ClientResponseError(
                reply.request_info, (), status=reply.status, message=await reply.text()
            )
        received = await reply.content.readany()
        if begun is not None:
            begun.set()
        received += await reply.read()
        stream = check_stream(received, kind="completion")
        return Stream(
            text=stream.texts.get(0, ""),
            is_whole=stream.error is None,
            error=stream.error,
            generation_id=reply.headers["X-Generation-Id"],
            duration_s=loop.time() - started_s,
        )


@dataclass
class _Platform:
    contract: Contract
    replica: Replica
    session: aiohttp.ClientSession

    @classmethod
    @asynccontextmanager
    async def of(cls, contract: Contract, replica: Replica) -> "AsyncIterator[_Platform]":
        """Connects anew for each request, as probes do, and to no name but an address."""
        connector = aiohttp.TCPConnector(force_close=True)
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield cls(contract, replica, session)

    @property
    def url(self) -> str:
        """From outside: 127.0.0.2 is reached only by who listens on all addresses."""
        host = "127.0.0.1" if self.contract.is_same_host else "127.0.0.2"
        return f"http://{host}:{self.replica.port}"

    async def status_of(self, probe: Probe) -> int:
        """Ask for the health."""
        base = self.url.replace(f":{self.replica.port}", f":{self.replica.probe_port}")
        async with self.session.get(base + probe.path) as reply:
            await reply.read()
            return reply.status

    async def until_open(self, patience_s: float) -> None:
        """Connect until somebody answers; a model that is not loaded must not prevent it."""
        until_s = time.monotonic() + patience_s
        while True:
            try:
                async with self.session.get(f"{self.url}/livez") as reply:
                    assert reply.status == 200
                    return
            except aiohttp.ClientConnectionError:
                assert time.monotonic() < until_s, f"nobody listens on {self.url}"
                await asyncio.sleep(_POLL_S)

    async def check_starting(self) -> None:
        """Nothing is routed to a server that loads, and nobody restarts it."""
        for probe in self.contract.probes:
            status = await self.status_of(probe)
            assert probe.is_passed(status) == (probe.purpose == "liveness"), (probe, status)
            if probe.initialising is not None:
                assert status == probe.initialising, probe

    async def until_ready(self) -> None:
        """Ask, as often as the platform does."""
        probes = self.contract.probes or (Probe(path="/readyz", purpose="readiness"),)
        async with asyncio.timeout(20):
            while True:
                statuses = [(probe, await self.status_of(probe)) for probe in probes]
                if all(probe.is_passed(status) for probe, status in statuses):
                    return
                for probe, status in statuses:
                    waits = status in {probe.initialising, 503}
                    assert probe.is_passed(status) or waits, (probe, status)
                await asyncio.sleep(_POLL_S)

    async def check_requests(self) -> None:
        """Requests end before the platform cuts them, fit where it lets them, and are known."""
        stream = await talk(self.session, self.url, 4)
        assert stream.is_whole
        self.check_deadline(float(stream.text.rstrip(".")))
        await self.check_request_id()
        if self.contract.max_body_bytes is not None:
            await self.check_body(self.contract.max_body_bytes)
        if self.contract.address_header is not None:
            await self.check_addresses(self.contract.address_header)

    def check_deadline(self, given_s: float) -> None:
        """What the model was given is less than the platform gives, and not by much."""
        if self.contract.timeout_s is None:
            return
        assert given_s < self.contract.timeout_s
        assert given_s >= min(600, self.contract.timeout_s) - _MARGIN_S

    async def check_request_id(self) -> None:
        """The usage line has the platform's name of the request."""
        body = {"model": "test-model", "prompt": "x", "max_tokens": 1}
        headers = {**_AUTHORIZATION, self.contract.request_id_header: "platform-1"}
        async with self.session.post(
            f"{self.url}/v1/completions", json=body, headers=headers
        ) as reply:
            assert reply.status == 200, await reply.text()
            generation_id = reply.headers["X-Generation-Id"]
        final = await self.line_with(event="usage.final", generation_id=generation_id)
        assert final["client_request_id"] == "platform-1"

    async def check_body(self, most: int) -> None:
        """What the platform lets through is read, and more is refused by its length."""
        url = f"{self.url}/v1/completions"
        head = b'{"model": "test-model", "prompt": "x", "max_tokens": 1, "metadata": {"pad": "'
        body = head + b"x" * (most - len(head) - 3) + b'"}}'
        headers = {**_AUTHORIZATION, "Content-Type": "application/json"}
        async with self.session.post(url, data=BytesIO(body), headers=headers) as reply:
            assert reply.status != 413
        too_large = {**headers, "Content-Length": str(most + 1)}
        async with (
            asyncio.timeout(1),
            self.session.post(url, data=b"{", headers=too_large) as reply,
        ):
            assert reply.status == 413

    async def check_addresses(self, header: str) -> None:
        """Clients are told apart behind the proxy, and cannot say that they are another."""

        async def guess(told: str) -> int:
            headers = {"Authorization": "Bearer wrong-key-of-somebody", header: told}
            async with self.session.get(f"{self.url}/v1/models", headers=headers) as reply:
                return reply.status

        assert await guess("203.0.113.1") == 401
        assert await guess("198.51.100.9, 203.0.113.1") == 429
        assert await guess("203.0.113.2") == 401

    async def line_with(self, **fields: str) -> dict[str, Any]:
        """The line of the log that has these fields, once it is there."""
        async with asyncio.timeout(10):
            while True:
                for line in self.replica.lines():
                    if fields.items() <= line.items():
                        return line
                await asyncio.sleep(_POLL_S)

    async def check_stop(self, stream_s: float) -> None:
        """After the signal nothing is lost that fits the grace, and the process is gone in time."""
        contract = self.contract
        begun = asyncio.Event()
        num_tokens = int(stream_s / TOKEN_S)
        fitting = asyncio.create_task(talk(self.session, self.url, num_tokens, begun))
        await begun.wait()
        self.replica.send(contract.stop_signal)
        await self.check_draining()
        if contract.keeps_sending:
            late = await talk(self.session, self.url, 2)
            assert late.is_whole
        stream = await fitting
        assert stream.is_whole
        self.replica.hurry()
        assert await self.replica.ended(contract.grace_s) == 0
        announced = await self.line_with(event="server.draining")
        assert 0.8 * contract.grace_s <= announced["grace_s"] <= contract.grace_s
        await self.line_with(event="usage.final", generation_id=stream.generation_id, status="ok")

    async def check_draining(self) -> None:
        """As soon as it knows, a server that should get no more requests says so, if it says any.

        Where nothing is sent after the signal, it may close its socket.
        """
        await self.line_with(event="server.draining")
        for probe in self.contract.probes:
            try:
                status = await self.status_of(probe)
            except aiohttp.ClientConnectionError:
                assert not self.contract.keeps_sending
                continue
            if probe.purpose != "startup":
                assert probe.is_passed(status) == (probe.purpose == "liveness"), (probe, status)

"""Every platform's life of a container, with `provider serve` in a process of its own."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from provider_core.settings import load_settings
from tests.platform.contracts import CONTRACTS
from tests.platform.replicas import as_process
from tests.platform.simulator import check_settings, examine, talk

_AT_A_TIME = 4  # they wait more than they work


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseException | None]:
    """What went wrong on each platform, all played at once."""

    async def play_all() -> dict[str, BaseException | None]:
        turns = asyncio.Semaphore(_AT_A_TIME)

        async def play(name: str) -> None:
            folder = tmp_path_factory.mktemp(name)
            async with turns, as_process(name, CONTRACTS[name], folder) as replica:
                await examine(CONTRACTS[name], replica)

        ends = await asyncio.gather(*map(play, CONTRACTS), return_exceptions=True)
        return dict(zip(CONTRACTS, ends, strict=True))

    return asyncio.run(play_all())


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", CONTRACTS)
def test_a_server_fits_the_platform(name: str, failures: dict[str, BaseException | None]) -> None:
    """Right codes in each state, every request that fits the grace, and the right end."""
    failure = failures[name]
    if failure is not None:
        raise failure


async def test_a_stream_ends_before_the_platform_cuts_it(tmp_path: Path) -> None:
    """By itself, with an error that says why, and settled; here after a second."""
    contract = CONTRACTS["modal"]
    further = {"PROVIDER_LIMITS__REQUEST_TIMEOUT_S": "1"}
    cut = aiohttp.ClientTimeout(total=5)
    async with (
        as_process("modal", contract, tmp_path, **further) as replica,
        aiohttp.ClientSession(timeout=cut) as session,
    ):
        replica.finish_loading()
        url = f"http://127.0.0.1:{replica.port}"
        while not await is_ready(session, url):  # noqa: ASYNC110 - as a platform does
            await asyncio.sleep(0.02)
        stream = await talk(session, url, 10_000)
        replica.send(contract.stop_signal)
        assert await replica.ended(contract.grace_s) == 0
    assert stream.error is not None
    assert stream.error["code"] == "deadline_exceeded"
    (final,) = [line for line in replica.lines() if line["event"] == "usage.final"]
    assert (final["status"], final["error_code"]) == ("error", "deadline_exceeded")
    assert final["completion_tokens"] == len(stream.text)


async def is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    """Whether it wants requests."""
    try:
        async with session.get(f"{url}/readyz") as reply:
            return reply.status == 200
    except aiohttp.ClientConnectionError:
        return False


@pytest.mark.parametrize("name", CONTRACTS)
def test_settings_come_from_the_platform(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The port and all else that the platform tells by variables of its own."""
    monkeypatch.chdir(tmp_path)

    def settings_for(environment: dict[str, str]) -> Any:
        with monkeypatch.context() as patch:
            for variable, value in environment.items():
                patch.setenv(variable, value)
            return load_settings(platform=name)

    check_settings(name, CONTRACTS[name], settings_for)

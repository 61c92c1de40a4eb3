"""Every platform's life of a container, with `provider serve` in a process of its own."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from provider_core.settings import load_settings
from tests.platform.contracts import CONTRACTS
from tests.platform.replicas import as_process
from tests.platform.simulator import check_settings, examine

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

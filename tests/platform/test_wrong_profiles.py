"""The simulator notices: each value of each profile, made wrong, is found."""

import copy
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from provider_core import ConfigurationError, platforms
from provider_core.settings import load_settings
from tests.platform.contracts import CONTRACTS
from tests.platform.replicas import in_process
from tests.platform.simulator import check_settings, examine

PROFILES = {
    entry_point.name: platforms._read(entry_point)
    for entry_point in entry_points(group=platforms.GROUP)
    if entry_point.name in CONTRACTS
}

Steps = tuple[str, ...]


def wrong_values(steps: Steps, value: Any) -> Iterator[Any]:
    """Plausible mistakes in one value."""
    match value:
        case int() if steps[-1] == "drain_delay_s":
            yield 0
        case int() if steps[-1] == "keepalive_timeout_s":
            yield value // 2  # a longer one does no harm
        case int() if "probes" in steps:
            yield 404
        case int() | float():
            yield value * 2
            yield value / 2 if steps[-1].endswith("_s") else value // 2
        case "0.0.0.0":
            yield "127.0.0.1"
        case str() if value.startswith("${"):
            yield value.replace("${", "${X_")
            yield value.replace(":-", ":-1", 1) if ":-$" not in value else value[:-3] + "1}}"
        case list():
            yield [f"X_{each}" for each in value] or ["PATH"]
        case _:
            yield f"x{value}"


def leaves(table: Mapping[str, Any], above: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """Every value with its place."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value


def mistakes() -> Iterator[Any]:
    """Every wrong profile, one value each."""
    for name, profile in PROFILES.items():
        for steps, value in leaves(profile):
            for number, wrong in enumerate(wrong_values(steps, value)):
                yield pytest.param(name, steps, wrong, id=f"{name}-{'.'.join(steps)}-{number}")
        for path in profile["settings"].get("probes", {}):
            yield pytest.param(name, ("settings", "probes", path), None, id=f"{name}-{path}")


def with_value(profile: Mapping[str, Any], steps: Steps, wrong: Any) -> dict[str, Any]:
    """A profile with one value changed, or taken out."""
    changed = copy.deepcopy(dict(profile))
    table = changed
    for step in steps[:-1]:
        table = table[step]
    if wrong is None:
        del table[steps[-1]]
    else:
        table[steps[-1]] = wrong
    return changed


async def play(name: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Everything the simulator asks, here in this process."""

    def settings_for(environment: Mapping[str, str]) -> Any:
        with patch.context() as more:
            for variable, value in environment.items():
                more.setenv(variable, value)
            return load_settings(platform=name)

    check_settings(name, CONTRACTS[name], settings_for)
    async with in_process(name, CONTRACTS[name], folder) as replica:
        await examine(CONTRACTS[name], replica, patience_s=0, stream_s=0.1)


@pytest.mark.parametrize("name", CONTRACTS)
async def test_the_profile_as_it_is_passes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here as in a process of its own, so that what follows means something."""
    monkeypatch.chdir(tmp_path)
    await play(name, tmp_path, monkeypatch)


@pytest.mark.parametrize(("name", "steps", "wrong"), list(mistakes()))
async def test_a_wrong_profile_is_noticed(
    name: str, steps: Steps, wrong: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value is wrong, and the server does not fit the platform any more."""
    monkeypatch.chdir(tmp_path)
    profile = with_value(PROFILES[name], steps, wrong)
    read = platforms._read
    monkeypatch.setattr(
        platforms, "_read", lambda each: profile if each.name == name else read(each)
    )
    with pytest.raises((AssertionError, ConfigurationError, OSError, TimeoutError)):
        await play(name, tmp_path, monkeypatch)

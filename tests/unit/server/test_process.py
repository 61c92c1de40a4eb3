"""How many connections a process takes, where the system allows it few open files."""

import resource
from collections.abc import Iterator
from unittest.mock import Mock, patch

import pytest

from provider_core.server import process
from provider_core.settings import Settings

NEVER = resource.RLIM_INFINITY


@pytest.fixture
def system() -> Iterator[Mock]:
    """The limits of this process, in whose place a test sets others."""
    with patch.object(process, "resource", wraps=resource) as system:
        system.RLIM_INFINITY, system.RLIMIT_NOFILE = NEVER, resource.RLIMIT_NOFILE
        system.setrlimit = Mock()
        yield system


def settings_of(max_connections: int) -> Settings:
    """Settings that want so many."""
    return Settings.model_validate({"limits": {"max_connections": max_connections}})


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "expected"),
    [
        (NEVER, NEVER, None, 2048),
        (4096, 4096, None, 2048),
        (1024, NEVER, 2304, 2048),
        (1024, 524_288, 2304, 2048),
        (1024, 1024, 1024, 768),
        (256, 1024, 1024, 768),
        (150, 150, 150, 75),
        (64, 64, 64, 32),
    ],
)
def test_no_more_connections_than_descriptors(
    system: Mock, soft: int, hard: int, raised: int | None, expected: int
) -> None:
    """The soft limit is raised as far as it goes; what is missing then is taken off."""
    system.getrlimit = Mock(return_value=(soft, hard))
    settings, read_settings = process._fit_connections(settings_of(2048), lambda: settings_of(3000))
    assert settings.limits.max_connections == expected
    assert read_settings().limits.max_connections == (3000 if expected == 2048 else expected)
    raises = [] if raised is None else [((resource.RLIMIT_NOFILE, (raised, hard)),)]
    assert system.setrlimit.call_args_list == raises


def test_few_connections_fit_into_few_descriptors(system: Mock) -> None:
    """Whoever has lowered the setting is not told to."""
    system.getrlimit = Mock(return_value=(150, 150))
    with patch.object(process, "log") as log:
        settings, _ = process._fit_connections(settings_of(60), lambda: settings_of(60))
        assert settings.limits.max_connections == 60
        log.warning.assert_not_called()
        process._fit_connections(settings_of(100), lambda: settings_of(100))
        log.warning.assert_called_once_with("connections.capped", max_connections=75, wanted=100)

"""Profiles of platforms: weaker than whatever is said, and filled in as a shell does."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from provider_core.errors import ConfigurationError
from provider_core.platforms import ProbeSettings, platform_settings, suggest_platform
from provider_core.settings import Settings, load_settings

Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution that brings the platform `acme` with this profile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(profile: str) -> None:
        info = tmp_path / "acme_platform-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-platform\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "[provider_core.platforms]\nacme = acme_platform_package\n"
        )
        package = tmp_path / "acme_platform_package"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "acme.toml").write_text(profile)
        monkeypatch.delitem(sys.modules, "acme_platform_package", raising=False)

    return write


def test_whatever_is_said_is_stronger(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, the environment and the command line win over the profile, key by key."""
    install(
        '[settings]\nport = 1\nhost = "profile"\nbackend = "profile"\ndata_dir = "profile"\n'
        "[settings.limits]\nmax_n = 2\nmax_prompts = 2\n"
        '[settings.probes."/ping"]\nstarting = 204\nready = 201\n'
    )
    Path("provider.toml").write_text(
        'backend = "file"\n[limits]\nmax_n = 3\n[probes."/ping"]\nready = 202\n'
    )
    monkeypatch.setenv("PROVIDER_HOST", "environment")

    settings = load_settings(platform="acme", port=5)

    assert (settings.port, settings.host, settings.backend) == (5, "environment", "file")
    assert (settings.limits.max_n, settings.limits.max_prompts) == (3, 2)
    assert settings.probes == {"/ping": ProbeSettings(starting=204, ready=202)}
    assert settings.data_dir == Path("profile")


@pytest.mark.parametrize("source", ["option", "environment", "file"])
def test_the_platform_may_be_named_anywhere(
    install: Install, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """On the command line, in the environment and in the file."""
    install("[settings]\nport = 1\n")
    if source == "environment":
        monkeypatch.setenv("PROVIDER_PLATFORM", "acme")
    if source == "file":
        Path("provider.toml").write_text('platform = "acme"\n')

    settings = load_settings(platform="acme") if source == "option" else load_settings()

    assert (settings.platform, settings.port) == ("acme", 1)


@pytest.mark.parametrize(
    ("value", "environment", "expected"),
    [
        ("${A:-1}", {}, "1"),
        ("${A:-1}", {"A": "2"}, "2"),
        ("${A:-1}", {"A": ""}, "1"),
        ("${A:-${B:-1}}", {"B": "2"}, "2"),
        ("${A:-${B:-1}}", {"A": "3", "B": "2"}, "3"),
        ("x-${A:-1}/${B:-}", {"B": "2"}, "x-1/2"),
        ("$A {B}", {"A": "1"}, "$A {B}"),
    ],
)
def test_variables_are_filled_in_as_a_shell_does(
    install: Install, value: str, environment: dict[str, str], expected: str
) -> None:
    """In values, in keys and in lists, the innermost first; empty is unset."""
    install(f'[settings]\nlist = [1, "{value}"]\n[settings.table."{value}"]\nkey = "{value}"\n')

    assert platform_settings("acme", environment) == {
        "list": [1, expected],
        "table": {expected: {"key": expected}},
    }


def test_a_platform_that_nobody_brings_is_a_name() -> None:
    """It stands in usage events and changes nothing."""
    assert load_settings(platform="bare-metal") == Settings(platform="bare-metal")


def test_a_mistake_in_a_profile_says_where_it_is(install: Install) -> None:
    """As one in any other source."""
    install('[settings]\nport = "${PORT:-many}"\n')

    with pytest.raises(ConfigurationError, match="port in the profile of platform acme: "):
        load_settings(platform="acme")


def test_a_profile_that_cannot_be_read_stops_the_start_there_only(install: Install) -> None:
    """Whoever is elsewhere does not hear of it."""
    install("[settings")

    with pytest.raises(ConfigurationError, match="profile of platform 'acme' in acme_platform"):
        load_settings(platform="acme")
    assert suggest_platform({"FLY_APP_NAME": "a"}) == "fly"


@pytest.mark.parametrize(
    ("said", "meant"),
    [("cloudrun", "cloud-run"), ("fly.io", "fly"), ("fly", None), ("bare-metal", None)],
)
def test_a_slip_of_the_pen_is_told(said: str, meant: str | None) -> None:
    """A name that is almost a platform's is none, and listens where nobody asks."""
    assert suggest_platform({"K_SERVICE": "s"}, said) == meant


def test_the_surest_platform_is_suggested(install: Install) -> None:
    """The one with the most variables, of those whose variables are all there."""
    install('signs = ["K_SERVICE", "ACME"]\n')

    assert suggest_platform({"K_SERVICE": "s", "ACME": "1"}) == "acme"
    assert suggest_platform({"K_SERVICE": "s"}) == "cloud-run"
    assert suggest_platform({"ACME": "1"}) is None

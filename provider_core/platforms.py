"""Hosting platforms: what each needs of the settings, as data that handlers bring.

A platform is an entry point of the group `provider_core.platforms`, by the name that
`provider serve --platform` takes. It leads to a package that holds `NAME.toml`::

    signs = ["K_SERVICE"]       # variables that together give the platform away

    [settings]                  # in the form of provider.toml, and weaker than it
    port = "${PORT:-8080}"      # the platform's own variable, or else what stands behind it

The package of the platform that is served on is a plugin, too, for hooks that it may have. A
platform that nobody brings is a name in the usage event and changes nothing.
"""

import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from typing import Any

from pydantic import Field

from provider_core.errors import ConfigurationError
from provider_core.model_settings import Table

GROUP = "provider_core.platforms"
"""Name of the entry-point group."""

_VARIABLE = re.compile(r"\$\{(\w+):-([^${}]*)\}")


class ProbeSettings(Table):
    """`[probes."/path"]`: the status codes that a health check gets, by the server's state."""

    starting: int = Field(503, ge=200, le=599, description="Models are being loaded.")
    ready: int = Field(200, ge=200, le=599, description="Requests are served.")
    failing: int = Field(503, ge=200, le=599, description="They cannot be served right now.")
    draining: int = Field(503, ge=200, le=599, description="After a stop signal.")


def platform_settings(name: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """What a platform needs that nothing stronger sets, in the form of the file.

    Args:
        name: Of the platform.
        environment: Holds the platform's own variables.

    Returns:
        Nothing for a platform that nobody brings.

    Raises:
        ConfigurationError: Its profile cannot be read.
    """
    for entry_point in entry_points(group=GROUP, name=name):
        settings: dict[str, Any] = _fill(_read(entry_point).get("settings", {}), environment)
        return settings
    return {}


def suggest_platform(environment: Mapping[str, str], name: str = "local") -> str | None:
    """The platform that was probably meant.

    Args:
        environment: Of the process. Where no platform is named, it may look like one; the one with
            the most variables that are there is the surest.
        name: As it was said. Where nobody brings such a platform, it may be a slip of the pen.
    """
    brought = entry_points(group=GROUP)
    if name in brought.names:
        return None
    if name != "local":
        return next(iter(get_close_matches(name, brought.names, n=1)), None)
    best, num_seen = None, 0
    for entry_point in brought:
        with suppress(ConfigurationError):
            signs = _read(entry_point).get("signs", ())
            if len(signs) > num_seen and all(sign in environment for sign in signs):
                best, num_seen = entry_point.name, len(signs)
    return best


def _read(entry_point: EntryPoint) -> dict[str, Any]:
    """Read a platform's profile.

    Raises:
        ConfigurationError: It is not there, or not TOML.
    """
    try:
        file = files(entry_point.module) / f"{entry_point.name}.toml"
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (ImportError, OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"the profile of platform {entry_point.name!r} in {entry_point.value} cannot be read: "
            f"{error}"
        ) from error


def _fill(value: Any, environment: Mapping[str, str]) -> Any:  # Any: whatever TOML can nest
    """Put variables into strings as a shell does: `${NAME:-default}`, empty is unset."""
    match value:
        case dict():
            return {
                _fill(key, environment): _fill(each, environment) for key, each in value.items()
            }
        case list():
            return [_fill(each, environment) for each in value]
        case str():
            for _ in range(value.count("${")):  # the innermost first
                value = _VARIABLE.sub(lambda found: environment.get(found[1]) or found[2], value)
            return value
        case _:
            return value

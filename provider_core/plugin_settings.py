"""Settings of a plugin's own, as pydantic-settings has them, and over them a model's options.

pydantic-settings passes over a variable that no field has. Here a slip in a name is refused, as
everywhere, and a mistake is one line: the setting's name and what is wrong, never the value, which
may be a secret.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from provider_core.errors import ConfigurationError

S = TypeVar("S", bound=BaseSettings)

# What Kubernetes sets in the containers around a service: after its name, with an address for each
# port, and with the parts of that address.
_SERVICE_LINK = re.compile(
    r"\w*?_(SERVICE_(HOST|PORT(_\w+)?)=.*"
    r"|PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://\S+:\d+"
    r"|PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=.*)"
)


def read_plugin_settings(kind: type[S]) -> S:
    """Settings that the environment alone says.

    Args:
        kind: What they are. Its fields are plain, without aliases; its `env_prefix`, which is no
            other plugin's, begins the names of their variables.

    Raises:
        ConfigurationError: A variable is missing, unknown or invalid; named.
    """
    _refuse_unknown_variables(kind, "plugin")
    return _make(kind, {}, lambda name: f"{_prefix(kind)}{name}".upper())


def read_backend_settings(backend: str, kind: type[S], options: Mapping[str, object]) -> S:
    """Settings that the environment says for all models of a backend, and one model over it.

    Args:
        backend: Its name, for messages.
        kind: As `read_plugin_settings` has it.
        options: The model's, by the names of the fields.

    Raises:
        ConfigurationError: An option or a variable is missing, unknown or invalid; named.
    """
    _refuse_unknown_variables(kind, "backend")
    for name in options:
        if name not in kind.model_fields:
            known = ", ".join(kind.model_fields)
            raise ConfigurationError(f"{backend} option {name!r} is not one of {known}")
    return _make(kind, options, lambda name: f"{backend} option {name}")


def _prefix(kind: type[BaseSettings]) -> str:
    return kind.model_config.get("env_prefix", "")


def _refuse_unknown_variables(kind: type[BaseSettings], what: str) -> None:
    """Refuse what has the prefix and is no field, but for the links of a service called so."""
    prefix = _prefix(kind).lower()
    known = {f"{prefix}{field}" for field in kind.model_fields}
    for name, value in EnvSettingsSource(kind).env_vars.items():
        variable = name.upper()
        if not name.lower().startswith(prefix) or name.lower() in known:
            continue
        if not _SERVICE_LINK.fullmatch(f"{variable}={value}"):
            raise ConfigurationError(f"{variable} is no variable of this {what}")


def _make(kind: type[S], options: Mapping[str, object], title: Callable[[str], str]) -> S:
    """Settings of the environment with options over it; `title` is what a field is called."""
    values: dict[str, Any] = dict(options)  # pydantic checks them
    try:
        return kind(**values)
    except SettingsError as error:  # it names the field, and its cause has the value
        raise ConfigurationError(f"{_prefix(kind)}*: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{title(name)}: {first['msg']}") from None

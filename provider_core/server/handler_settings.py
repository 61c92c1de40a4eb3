"""Settings of a handler's own, from the environment."""

from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from provider_core.errors import ConfigurationError

S = TypeVar("S", bound=BaseSettings)


def read_handler_settings(kind: type[S], **overrides: Any) -> S:
    """Read them.

    Args:
        kind: What they are; its `env_prefix` begins the names of the variables.
        **overrides: What wins over the environment, by the names of the fields.

    Raises:
        ConfigurationError: A value does not fit; names the variable and not the value.
    """
    try:
        return kind(**overrides)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        name = f"{kind.model_config.get('env_prefix', '')}{detail['loc'][0]}".upper()
        raise ConfigurationError(f"{name}: {detail['msg'].lower()}") from None

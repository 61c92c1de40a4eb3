"""Settings of this backend: `PROVIDER_GENAI_*`, or one model's `options` over them."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from provider_core import ConfigurationError

PREFIX = "PROVIDER_GENAI_"


class GenaiSettings(BaseSettings):
    """How the runtime runs."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    provider: Literal["cpu", "cuda", "dml", "webgpu"] | None = Field(
        None, description="Where the model runs; default: as its genai_config.json says."
    )
    intra_op_num_threads: int | None = Field(
        None, ge=1, description="Threads of one step; default: as its genai_config.json says."
    )


def read_settings(options: Mapping[str, object]) -> GenaiSettings:
    """The environment's settings, a model's own options over them.

    Raises:
        ConfigurationError: An option or a variable is unknown or invalid; named.
    """
    known = {f"{PREFIX}{name}".lower() for name in GenaiSettings.model_fields}
    for variable in EnvSettingsSource(GenaiSettings).env_vars:  # in lower case
        if variable.startswith(PREFIX.lower()) and variable not in known:
            raise ConfigurationError(f"{variable.upper()} is no variable of this backend")
    values: dict[str, Any] = dict(options)  # pydantic checks them
    try:
        return GenaiSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"genai option {name}: {first['msg']}") from None
